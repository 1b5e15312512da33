// Opt-in: the Eigen backend. Needs Eigen 3.
#pragma once

#include <deltadct/backend/eigen/eigen.hpp>
