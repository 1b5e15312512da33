// FFTW's plans: made once, shared, and named in the error if there is none.
#if __has_include(<fftw3.h>)
  #include "../support/caught.hpp"

  #include <deltadct/codec.hpp>
  #include <deltadct/fftw.hpp>

  #include <memory>
  #include <thread>
  #include <vector>

  #include <doctest/doctest.h>

using namespace deltadct;
using test::caught;

TEST_CASE("fftw: a plan is made once and kept") {
  FftwPlans plans(FftwEffort::estimate);
  CHECK(plans.find<float>(8) == nullptr);
  plans.make<float>(8);
  const auto* made = plans.find<float>(8);
  REQUIRE(made != nullptr);
  plans.make<float>(8);
  CHECK(plans.find<float>(8) == made);
  CHECK(plans.find<double>(8) == nullptr);
  CHECK(plans.find<float>(9) == nullptr);
}

TEST_CASE("fftw: codecs share the caller's plans, and outlive the caller's hold on them") {
  using Codec = DeltaCodec<DefaultPolicy<float, 8>, Fftw>;
  auto plans = std::make_shared<FftwPlans>(FftwEffort::estimate);
  const Codec codec({}, DctKernel<Fftw>(plans));
  const auto* made = plans->find<float>(8);
  REQUIRE(made != nullptr);
  const Codec other({}, DctKernel<Fftw>(plans));
  const Codec copy = other;
  CHECK(plans->find<float>(8) == made);
  plans.reset();
  std::vector<float> delta(16 * 24, 0.5F);
  const auto compressed = copy.encode(MatrixView<const float>(delta.data(), 16, 24));
  std::vector<float> out(delta.size());
  codec.decode(compressed, MatrixView<float>(out.data(), 16, 24));
  for (const float value : out) CHECK(value == doctest::Approx(0.5F));
}

TEST_CASE("fftw: where there is no plan the error says for what") {
  // Only plans from wisdom are allowed, and there is none for that size.
  const auto plans = std::make_shared<FftwPlans>(FftwEffort::wisdom_only);
  const auto error = caught([&] { plans->make<double>(37); });
  CHECK(error.code() == Errc::no_plan);
  CHECK(error.where() == "FFTW");
  CHECK(error.detail() == "37 x 37");
  CHECK(plans->find<double>(37) == nullptr);
  CHECK(caught([&] {
          inverse_dct<Fftw, 37>(std::make_unique<double[]>(37 * 37).get(),
                                std::make_unique<double[]>(37 * 37).get(), 1,
                                DctKernel<Fftw>(plans));
        }).code() == Errc::no_plan);
}

TEST_CASE("fftw: any number of threads may ask for plans") {
  const auto plans = std::make_shared<FftwPlans>(FftwEffort::estimate);
  std::vector<const FftwDct<float>*> found(4);
  std::vector<std::thread> threads;
  for (auto& plan : found) {
    threads.emplace_back([&] {
      FftwPlans(FftwEffort::estimate).make<double>(16);
      plans->make<float>(16);
      plan = plans->find<float>(16);
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(found == std::vector(4, plans->find<float>(16)));
}

#endif
