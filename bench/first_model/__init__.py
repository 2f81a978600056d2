"""Script of a newcomer: the sample in the portal, the demo, a model of one's own, cut off and resumed, wrong inputs."""
