#!/bin/sh
# Prunes a model. SECATEUR_URL and SECATEUR_API_KEY say where; get_key.py gets the key where the CI system signs identity
# tokens. Ends with 3 where a gate is missed, and then downloads nothing: the exit code of `secateur watch` is the script's.
set -eu

job=$(secateur submit smollm2-135m --method wanda --sparsity 0.5 --format packed \
  --calibration wikipedia-calibration --calibration-samples 32 --sequence-length 512 \
  --evaluation wikipedia-articles --evaluation-samples 32 \
  --max-perplexity-ratio 2.4 --max-parameters 85000000 --id)
secateur watch "$job" --junit gates.xml --markdown summary.md
secateur download "$job" pruned --unpack
