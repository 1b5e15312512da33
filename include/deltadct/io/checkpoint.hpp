// Whole models: compresses a pair into a delta archive, applies an archive to a base, verifies one.
// Works tensor by tensor, so memory is bounded by the largest tensor, not by the model.
#pragma once

#include <deltadct/io/apply.hpp>
#include <deltadct/io/compress.hpp>
