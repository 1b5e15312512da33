// Opt-in: the FFTW backend. Needs FFTW 3 in both precisions (link fftw3 and fftw3f). FFTW is under
// the GNU General Public License, which then also covers what you distribute.
#pragma once

#include <deltadct/backend/fftw/fftw.hpp>
