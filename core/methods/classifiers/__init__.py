"""Methods for image classifiers in memory: curvature (`obd`, `obs`) and rounds of pruning and retraining."""
