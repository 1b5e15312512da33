// Whole models: compress a pair into a delta archive, apply an archive to a base, verify one.
// Tensor by tensor: memory is bounded by the largest tensor, not by the model.
#pragma once

#include <deltadct/io/apply.hpp>
#include <deltadct/io/compress.hpp>
