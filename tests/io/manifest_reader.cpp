// Manifests that are read: what no writer can have meant is refused by name.
#include <deltadct/io/manifest_reader.hpp>

#include "../support/largest_request.hpp"
#include "altered.hpp"
#include "manifests.hpp"

#include <cmath>

using namespace io_test;
using deltadct::WidthClass;

TEST_SUITE("text") {
  /// The error for a manifest with one change.
  template <class Fn>
  Error altered(Fn fn) {
    json changed = json::parse(io::manifest_text(manifest()));
    fn(changed);
    return caught([&] { io::parse_manifest(changed.dump(), "file"); });
  }

  TEST_CASE("members that are not known are ignored") {
    json text = json::parse(io::manifest_text(manifest()));
    text["comment"] = "x";
    text["tensors"][0]["comment"] = {1, 2};
    text["codecs"][0]["comment"] = nullptr;
    CHECK(io::parse_manifest(text.dump(), "file").entries.size() == manifest().entries.size());
  }

  TEST_CASE("rows that are lost are two numbers and whether the fine-tune's dtype keeps them") {
    const std::pair<const char*, Errc> malformed[] = {{"[1, 2]", Errc::corrupt_data},
                                                      {"[1, 2, 3]", Errc::corrupt_data},
                                                      {"7", Errc::bad_container},
                                                      {"[-1, 2, true]", Errc::bad_container},
                                                      {"[1, null, true]", Errc::bad_container}};
    for (const auto& each : malformed) {
      const json lost = json::parse(each.first);
      const Error error = altered([&](json& changed) { entry_named(changed, "a")["lost"] = lost; });
      CHECK(error.code() == each.second);
      CHECK(names(error, "a"));
    }
  }

  TEST_CASE("a required feature is refused by name, none is fine") {
    const Error error = altered([](json& m) { m["requires"] = {"magic", "more"}; });
    CHECK(error.code() == Errc::unsupported_version);
    CHECK(error.where() == "file");
    CHECK(names(error, "it requires 'magic'"));
    CHECK(altered([](json& m) { m["requires"] = "magic"; }).code() == Errc::bad_container);
    CHECK(altered([](json& m) { m["requires"] = {7}; }).code() == Errc::bad_container);
    json text = json::parse(io::manifest_text(manifest()));
    text["requires"] = json::array();
    CHECK(io::parse_manifest(text.dump(), "file").entries.size() == manifest().entries.size());
  }

  TEST_CASE("errors name the file, and the tensor where there is one") {
    const Error file = altered([](json& m) { m.erase("codecs"); });
    CHECK(file.code() == Errc::bad_container);
    CHECK(file.where() == "file");
    CHECK(names(file, "codecs"));
    const Error tensor = altered([](json& m) { m["tensors"][1]["matrices"][0][0] = "big"; });
    CHECK(tensor.code() == Errc::corrupt_data);
    CHECK(tensor.where() == "file: b");
    CHECK(names(tensor, "scale"));
    const Error inner = altered([](json& m) { m["tensors"][1]["matrices"][0][1][0][0] = 5; });
    CHECK(inner.code() == Errc::corrupt_data);
    CHECK(names(inner, "file: b: bit width"));
    const Error version = altered([](json& m) { m["version"] = 7; });
    CHECK(version.code() == Errc::unsupported_version);
    CHECK(names(version, "version 7"));
    const Error metadata = altered([](json& m) { m["metadata"]["format"] = 7; });
    CHECK(metadata.code() == Errc::bad_container);
    CHECK(names(metadata, "file: __metadata__"));
  }

  TEST_CASE("a base that its mode does not allow") {
    const auto base = [](const char* name, const char* key, const json& value) {
      const Error error = altered([&](json& m) {
        json& entry = entry_named(m, name);
        if (value.is_null())
          entry.erase(key);
        else
          entry[key] = value;
      });
      CHECK(error.where() == "file: " + std::string(name));
      return error.code();
    };
    for (const char* name : {"a", "grown", "shrunk", "lossless", "same", "removed"}) {
      CAPTURE(name);
      CHECK(base(name, "base", nullptr) == Errc::corrupt_data);
    }
    CHECK(base("added", "base", "x") == Errc::corrupt_data);
    CHECK(base("same", "base", "x") == Errc::corrupt_data);
    for (const char* name : {"a", "grown", "shrunk", "same", "removed"}) {
      CAPTURE(name);
      CHECK(base(name, "base_dtype", "U16") == Errc::corrupt_data);
      CHECK(base(name, "base_shape", {1}) == Errc::corrupt_data);
      CHECK(base(name, "base_shape", json::array()) == Errc::corrupt_data);
    }
    CHECK(base("grown", "base_shape", {9, 5}) == Errc::corrupt_data);
    CHECK(base("grown", "base_shape", {10, 5}) == Errc::corrupt_data);
    CHECK(base("grown", "base_shape", nullptr) == Errc::corrupt_data);
    CHECK(base("shrunk", "base_shape", {7, 5}) == Errc::corrupt_data);
    CHECK(base("shrunk", "base_shape", {6, 5}) == Errc::corrupt_data);
    CHECK(base("shrunk", "base_shape", nullptr) == Errc::corrupt_data);
    // No codec has such elements.
    CHECK(base("a", "dtype", "I32") == Errc::corrupt_data);
    CHECK(base("grown", "dtype", "I32") == Errc::corrupt_data);
    // Its bytes would overflow in the base's dtype, or in any.
    CHECK(base("lossless", "base_shape", {std::int64_t{1} << 60}) == Errc::corrupt_data);
    CHECK(base("lossless", "base_shape", {std::int64_t{1} << 62, 8, 0}) == Errc::corrupt_data);
  }

  TEST_CASE("a shape that fits the tensor's dtype, but overflows in its base's") {
    const Error error = altered([](json& m) {
      json& entry = entry_named(m, "lossless");
      entry["dtype"] = "U8";
      entry["base_dtype"] = "F64";
      entry["shape"] = {std::int64_t{1} << 61};
      entry.erase("base_shape");
    });
    CHECK(error.code() == Errc::corrupt_data);
    CHECK(names(error, "overflows"));
  }

  TEST_CASE("a grown scalar, and a shrunk one, are none") {
    for (const char* mode : {"grown", "shrunk"}) {
      CHECK(altered([&](json& m) {
              json& entry = entry_named(m, "grown");
              entry["mode"] = mode;
              entry["shape"] = json::array();
              entry["base_shape"] = json::array();
            }).code() == Errc::corrupt_data);
    }
  }

  TEST_CASE("a name from the file cannot break the line of a message") {
    const Error error = altered([](json& m) {
      m["tensors"][0]["name"] = "a\nb\x1b[2J" + std::string(100'000, 'x');
      m["tensors"][0]["mode"] = "\n" + std::string(100'000, 'y');
    });
    const std::string text = error.what();
    CHECK(text.size() < 1000);
    CHECK(text.find('\n') == text.npos);
    CHECK(text.find('\x1b') == text.npos);
  }

  TEST_CASE("the caller's limits hold") {
    const std::string text = io::manifest_text(manifest());
    const auto parse = [&](const io::Limits& limits) {
      return io::parse_manifest(text, "file", {.limits = limits}).entries.size();
    };
    const auto limited = [&](const io::Limits& limits) { return caught([&] { parse(limits); }); };
    CHECK(limited({.header_bytes = text.size() - 1}).code() == Errc::limit_exceeded);
    CHECK(parse({.header_bytes = text.size()}) == 12);
    CHECK(limited({.tensors = 11}).code() == Errc::limit_exceeded);
    CHECK(parse({.tensors = 12}) == 12);
    CHECK(limited({.rank = 2}).code() == Errc::limit_exceeded);
    CHECK(parse({.rank = 3}) == 12);
    CHECK(limited({.depth = 6}).code() == Errc::bad_container);
    CHECK(parse({.depth = 7}) == 12);
  }

  TEST_CASE("a manifest that is cut off is refused, and no other text crashes") {
    Manifest small = manifest();
    small.entries.erase(small.entries.begin() + 1, small.entries.begin() + 3);
    const std::string text = io::manifest_text(small);
    for (std::size_t length = 0; length < text.size(); ++length) {
      CHECK_THROWS_AS(io::parse_manifest(text.substr(0, length), "file"), Error);
    }
    for (std::size_t at = 0; at < text.size(); ++at) {
      for (const char c : {'"', '9', '-', '{', ']', '\xff'}) {
        std::string changed = text;
        changed[at] = c;
        try {
          static_cast<void>(io::parse_manifest(changed, "file"));
        } catch (const Error&) {
        }
      }
    }
  }

  TEST_CASE("a dtype that is unknown has bits") {
    const io::ReadOptions any{.unknown_dtype = io::UnknownDType::keep};
    const StoredDType nibbles = StoredDType::named("U4", 4).value();
    Manifest from;
    from.entries.push_back(entry_of("same", Mode::same, DType::u8, {6}));
    from.entries[0].dtype = from.entries[0].base->dtype = nibbles;
    from.entries.push_back(entry_of("was", Mode::lossless, DType::u8, {6}));
    from.entries[1].base->dtype = nibbles;
    const json text = json::parse(io::manifest_text(from));
    CHECK(text["tensors"][0]["bits"] == 4);
    CHECK(!text["tensors"][0].contains("base_bits"));
    CHECK(!text["tensors"][1].contains("bits"));
    CHECK(text["tensors"][1]["base_bits"] == 4);
    const Manifest found = io::parse_manifest(text.dump(), "file", any);
    CHECK(found.entries[0].dtype == nibbles);
    CHECK(found.entries[0].base->dtype == nibbles);
    CHECK(found.entries[0].bytes() == 3);
    CHECK(found.entries[1].base->dtype == nibbles);
    const auto refused = [&](const char* key, const json& value, const io::ReadOptions& options) {
      json changed = text;
      changed["tensors"][0][key] = value;
      const Error error = caught([&] { io::parse_manifest(changed.dump(), "file", options); });
      CHECK(error.where() == "file: same");
      return error.code();
    };
    CHECK(refused("bits", 4, {}) == Errc::unsupported_dtype);
    CHECK(refused("bits", nullptr, any) == Errc::bad_container);
    CHECK(refused("bits", 0, any) == Errc::unsupported_dtype);
    CHECK(refused("bits", 129, any) == Errc::unsupported_dtype);
    CHECK(refused("bits", 3, any) == Errc::corrupt_data);  // ends within a byte
    CHECK(refused("dtype", "a b", any) == Errc::unsupported_dtype);
    CHECK(refused("dtype", "F32", any) == Errc::corrupt_data);  // has 32 bits, not 4
    json without = text;
    without["tensors"][0].erase("bits");
    CHECK(caught([&] { io::parse_manifest(without.dump(), "file", any); }).code() ==
          Errc::unsupported_dtype);
  }
}

TEST_SUITE("damage") {
  TEST_CASE("the manifest is not JSON, or not the JSON it should be") {
    const Folder folder;
    write_small(folder / "a");
    const Draft draft(folder / "a");
    for (const std::string text :
         {"", "{", "[]", "null", "1", "\"\"", "{}", "\xff", "{\"version\":1}",
          "{\"version\":1,\"version\":1,\"metadata\":{},\"codecs\":[],\"tensors\":[]}",
          "{\"version\":1,\"metadata\":[],\"codecs\":[],\"tensors\":[]}",
          "{\"version\":1,\"codecs\":[],\"tensors\":[]}",
          "{\"version\":1,\"metadata\":{},\"codecs\":{},\"tensors\":[]}",
          "{\"version\":1,\"metadata\":{},\"codecs\":[],\"tensors\":{}}",
          "{\"version\":1,\"metadata\":{},\"codecs\":[],\"tensors\":[1]}",
          "{\"version\":1,\"metadata\":{},\"codecs\":[],\"tensors\":[{}]}",
          "{\"version\":1,\"metadata\":{},\"codecs\":[],\"tensors\":[null]}",
          "{\"version\":1.0,\"metadata\":{},\"codecs\":[],\"tensors\":[]}",
          "{\"version\":\"1\",\"metadata\":{},\"codecs\":[],\"tensors\":[]}"}) {
      CAPTURE(text);
      draft.write(folder / "b", text);
      CHECK(refusal(folder / "b").error.code() == Errc::bad_container);
    }
    draft.write(folder / "b", std::string(100'000, '['));
    CHECK(refusal(folder / "b").error.code() == Errc::bad_container);
  }
}

TEST_SUITE("manifest altered") {
  TEST_CASE("an archive put together again reads as before") {
    const Folder folder;
    for (const RatioAllocator& mix : {kPaper, kOne, kSeven}) {
      const auto expected = write_small(folder / "a", mix);
      Draft draft(folder / "a");
      for (const std::string name : {"w", "r", "n", "g", "k"}) draft.seal(name);
      draft.write(folder / "b");
      CHECK(read_all(folder / "b") == expected);
      std::ranges::reverse(draft.sections);
      draft.write(folder / "b");
      CHECK(read_all(folder / "b") == expected);
    }
  }

  TEST_CASE("an unknown mode") {
    for (const char* mode : {"", "Delta", "delta ", "sparse", "raw"}) {
      check_refused(altered_entry([&](json& e) { e["mode"] = mode; }), Errc::corrupt_data,
                    Step::open);
    }
    check_refused(altered_entry([](json& e) { e["mode"] = 1; }), Errc::bad_container, Step::open);
  }

  TEST_CASE("an unknown dtype") {
    for (const char* dtype : {"", "F31", "f32", "F5"}) {
      check_refused(altered_entry([&](json& e) { e["dtype"] = dtype; }), Errc::unsupported_dtype,
                    Step::open);
      check_refused(altered_entry([&](json& e) { e["base_dtype"] = dtype; }),
                    Errc::unsupported_dtype, Step::open);
      check_refused(altered([&](Draft& draft) { draft.manifest["codecs"][0]["bound"] = dtype; }),
                    Errc::unsupported_dtype, Step::open);
    }
    check_refused(altered_entry([](json& e) { e["dtype"] = nullptr; }), Errc::bad_container,
                  Step::open);
  }

  TEST_CASE("bounds of a dtype that is no floating one, or another one") {
    check_refused(altered([](Draft& d) { d.manifest["codecs"][0]["bound"] = "I32"; }),
                  Errc::corrupt_data, Step::open);
    check_refused(altered([](Draft& d) { d.manifest["codecs"][0]["bound"] = "F8_E4M3"; }),
                  Errc::corrupt_data, Step::open);
    check_refused(altered([](Draft& d) { d.manifest["codecs"][0]["bound"] = "F64"; }),
                  Errc::corrupt_data, Step::read);
    // A section of the right size: 6 bounds and 3 constants of 8 bytes each.
    check_refused(altered([](Draft& d) {
                    d.manifest["codecs"][0]["bound"] = "F64";
                    Bytes bytes = d.section("delta:w").bytes;
                    bytes.erase(bytes.begin(), bytes.begin() + kWidths);
                    bytes.insert(bytes.begin(), 72, std::byte{0});
                    d.replace("delta:w", bytes);
                    d.seal("w");
                  }),
                  Errc::codec_mismatch, Step::validate);
  }

  TEST_CASE("a codec that is not there") {
    for (const json& index : {json(1), json(2), json(std::int64_t{1} << 40)}) {
      check_refused(altered_entry([&](json& e) { e["codec"] = index; }), Errc::corrupt_data,
                    Step::open);
    }
    for (const json& index : {json(-1), json(0.0), json("0"), json(nullptr)}) {
      check_refused(altered_entry([&](json& e) { e["codec"] = index; }), Errc::bad_container,
                    Step::open);
    }
    check_refused(altered([](Draft& d) { d.manifest["codecs"] = json::array(); }),
                  Errc::corrupt_data, Step::open);
    check_refused(altered([](Draft& d) { d.manifest["codecs"][0] = 3; }), Errc::bad_container,
                  Step::open);
  }

  TEST_CASE("names of stages that are too long or would reach a terminal") {
    for (const char* name : {"a name of sixteen", "\x1b[2J", "\n", "\xC2\x9B", "\x7F"}) {
      check_refused(altered([&](Draft& draft) { draft.manifest["codecs"][0]["transform"] = name; }),
                    Errc::corrupt_data, Step::open);
    }
  }

  TEST_CASE("stages that no codec has are refused before decoding") {
    check_refused(altered([](Draft& d) { d.manifest["codecs"][0]["transform"] = "wavelet"; }),
                  Errc::codec_mismatch, Step::validate);
    check_refused(altered([](Draft& d) { d.manifest["codecs"][0]["quantizer"] = "magic"; }),
                  Errc::codec_mismatch, Step::validate);
    check_refused(
        altered([](Draft& d) { d.manifest["codecs"][0]["transform"] = std::string(65, 'x'); }),
        Errc::corrupt_data, Step::open);
  }

  TEST_CASE("a delta of a dtype that the codec does not take") {
    for (const char* dtype : {"I32", "F8_E5M2", "BOOL"}) {
      check_refused(altered([&](Draft& draft) {
                      draft.entry("w")["dtype"] = dtype;
                      draft.entry("t")["dtype"] = dtype;
                    }),
                    Errc::corrupt_data, Step::open);
    }
  }

  TEST_CASE("every field is needed, and is of its type") {
    for (const std::string key :
         {"name", "mode", "dtype", "shape", "tuned", "delta", "codec", "stack", "matrices"}) {
      CAPTURE(key);
      CHECK(altered_entry([&](json& e) { e.erase(key); }).error.code() == Errc::bad_container);
      CHECK(altered_entry([&](json& e) { e[key] = false; }).error.code() == Errc::bad_container);
    }
    for (const std::string key : {"base", "base_dtype", "base_shape", "reason"}) {
      CAPTURE(key);
      check_refused(altered_entry([&](json& e) { e[key] = false; }), Errc::bad_container,
                    Step::open);
    }
    for (const std::string key : {"patch", "transform", "quantizer", "bound"}) {
      CAPTURE(key);
      check_refused(altered([&](Draft& d) { d.manifest["codecs"][0].erase(key); }),
                    Errc::bad_container, Step::open);
      check_refused(altered([&](Draft& d) { d.manifest["codecs"][0][key] = false; }),
                    Errc::bad_container, Step::open);
    }
    for (const std::string name : {"r", "n", "g"}) {
      check_refused(altered_entry([](json& e) { e.erase("lossless"); }, name), Errc::bad_container,
                    Step::open, (": " + name).c_str());
    }
    check_refused(altered_entry([](json& e) { e.erase("target"); }, "t"), Errc::bad_container,
                  Step::open, ": t");
  }

  TEST_CASE("a name that no model can have") {
    for (const std::string name : {"s", "t", "o"}) {
      for (const std::string& bad : {std::string("__metadata__"), std::string("a\0b", 3)}) {
        check_refused(altered_entry([&](json& e) { e["name"] = bad; }, name), Errc::corrupt_data,
                      Step::open, "not a name for a tensor");
      }
    }
  }

  TEST_CASE("a fingerprint that no tensor can have") {
    for (const std::string key : {"base", "tuned"}) {
      for (const char* sum :
           {"", "x", "0123456789abcde", "0123456789abcdef0", "0123456789ABCDEF"}) {
        check_refused(altered_entry([&](json& e) { e[key] = sum; }), Errc::corrupt_data,
                      Step::open);
      }
    }
  }

  TEST_CASE("several matrices without elements") {
    for (const std::string name : {"w", "k"}) {
      check_refused(altered_entry(
                        [](json& e) {
                          e["shape"] = {3, 0, 4};
                          e["base_shape"] = {e["mode"] == "delta" ? 3 : 4, 0, 4};
                          e["stack"] = {3, 0, 4};
                          e["matrices"] = json::array(
                              {{1, json::array()}, {1, json::array()}, {1, json::array()}});
                        },
                        name),
                    Errc::corrupt_data, Step::open, (": " + name).c_str());
    }
  }
}

TEST_SUITE("malformed delta") {
  TEST_CASE("a shape unlike the base's") {
    for (const std::string name : {"w", "s", "o"}) {
      for (const char* shape : {"[8,16]", "[]", "[96]", "[9,12]", "[3,2]", "[2,2,1]", "[3]"}) {
        CAPTURE(shape);
        check_refused(altered_entry([&](json& e) { e["base_shape"] = json::parse(shape); }, name),
                      Errc::corrupt_data, Step::open, (": " + name).c_str());
      }
    }
  }

  TEST_CASE("a dtype unlike the base's") {
    for (const std::string name : {"w", "s", "o", "g", "k"}) {
      for (const char* dtype : {"F16", "F64", "U8"}) {
        check_refused(altered_entry([&](json& e) { e["base_dtype"] = dtype; }, name),
                      Errc::corrupt_data, Step::open, (": " + name).c_str());
      }
    }
  }

  TEST_CASE("a shape other than the section's") {
    for (const std::string shape :
         {"[]", "[0]", "[8]", "[8,0]", "[8,16]", "[9,12]", "[16,12]", "[8,4]", "[4,12,2,2]",
          "[4294967296,12]", "[1048576,1048576]", "[0,12]", "[0,4611686018427387]",
          "[9223372036854775807,9223372036854775807]"}) {
      CAPTURE(shape);
      check_refused(altered_entry([&](json& e) { e["shape"] = json::parse(shape); }),
                    Errc::corrupt_data, Step::open);
    }
    for (const std::string shape :
         {"null", "[8,-12]", "[8.0,12]", "[\"8\",12]", "8", "[9223372036854775808]"}) {
      check_refused(altered_entry([&](json& e) { e["shape"] = json::parse(shape); }),
                    Errc::bad_container, Step::open);
    }
    check_refused(altered_entry([](json& e) { e["shape"] = json(std::vector<int>(17, 1)); }),
                  Errc::limit_exceeded, Step::open);
    for (const char* name : {"r", "n"}) {
      for (const char* shape : {"[4]", "[6]", "[]", "[0]", "[2,3]", "[100]"}) {
        check_refused(altered_entry([&](json& e) { e["shape"] = json::parse(shape); }, name),
                      Errc::corrupt_data, Step::read, name);
      }
    }
  }

  TEST_CASE("a patch size of 0, or one that overflows") {
    for (const json& patch : {json(0), json(65), json(std::int64_t{1} << 40),
                              json((std::int64_t{1} << 32) + 4), json(INT64_MAX)}) {
      check_refused(altered([&](Draft& d) { d.manifest["codecs"][0]["patch"] = patch; }),
                    Errc::corrupt_data, Step::open);
    }
    for (const json& patch :
         {json(-4), json(4.0), json("4"), json(true), json(std::uint64_t{1} << 63)}) {
      check_refused(altered([&](Draft& d) { d.manifest["codecs"][0]["patch"] = patch; }),
                    Errc::bad_container, Step::open);
    }
  }

  TEST_CASE("a patch size that no codec has") {
    // The grid has the same number of patches, so only the size of the codes differs.
    check_refused(altered([](Draft& d) { d.manifest["codecs"][0]["patch"] = 5; }),
                  Errc::corrupt_data, Step::read, ": w");
    check_refused(altered([](Draft& d) {
                    json codec = d.manifest["codecs"][0];
                    codec["patch"] = 5;
                    d.manifest["codecs"].push_back(codec);
                    d.entry("w")["codec"] = 1;
                    d.resize("delta:w", kCodes + 24);  // 3 patches of 25 codes of 2 bits
                    std::fill_n(d.section("delta:w").bytes.begin() + kCodes, 24, std::byte{0});
                    d.seal("w");
                  }),
                  Errc::codec_mismatch, Step::validate);
    for (const int patch : {1, 3, 7, 8, 64}) {  // grids other than the section's
      check_refused(altered([&](Draft& d) { d.manifest["codecs"][0]["patch"] = patch; }),
                    Errc::corrupt_data, Step::open);
    }
  }

  TEST_CASE("a patch count unlike the shape, or classes that are none") {
    const auto with = [](const json& value) {
      return altered_entry([&](json& e) { classes(e) = value; });
    };
    REQUIRE(altered_entry([](json& e) {
              REQUIRE(classes(e) == json::parse("[[2,2,3],[0,1,3]]"));
              classes(e) = nullptr;
            }).error.code() == Errc::bad_container);
    for (const std::string text :
         {"[]", "[[2,2,3]]", "[[2,2,3],[0,1,2]]", "[[2,2,3],[0,1,4]]", "[[0,1,3],[2,2,3]]",
          "[[2,2,3],[2,2,3]]", "[[2,2,9223372036854775807],[0,1,3]]",
          "[[2,2,9223372036854775807],[0,1,9223372036854775807]]",
          "[[2,2,18446744073709551],[0,1,3]]", "[[2,2],[0,1,3]]", "[[2,2,3,0],[0,1,3]]", "[[],[]]",
          "[[-2,1,3],[0,1,3]]", "[[2,2,3],[-1,1,3]]", "[[2,2,3],[-5,1,3]]",
          "[[2,2,3],[-4294967298,1,3]]",
          "[[8,2,1],[6,2,1],[4,2,1],[3,2,1],[2,2,1],[1,2,1],[0,1,0],[0,1,0]]"}) {
      CAPTURE(text);
      check_refused(with(json::parse(text)), Errc::corrupt_data, Step::open);
    }
    // The right number of patches, but not those of the width map, or not with these bytes.
    for (const std::string text : {"[[2,2,6]]", "[[2,2,6],[0,1,0]]", "[[2,2,4],[0,1,2]]",
                                   "[[2,2,2],[0,1,4]]", "[[2,2,3],[1,2,0],[0,1,3]]"}) {
      CAPTURE(text);
      check_refused(with(json::parse(text)), Errc::corrupt_data, Step::read);
    }
    for (const std::string text :
         {"{}", "3", "[3]", "[{}]", "[[2,2,-1],[0,1,3]]", "[[2.0,2,3],[0,1,3]]",
          "[[\"2\",2,3],[0,1,3]]", "[[2,null,3],[0,1,3]]", "[[-2.0,2,3],[0,1,3]]",
          "[[2,2,9223372036854775808],[0,1,3]]"}) {
      CAPTURE(text);
      check_refused(with(json::parse(text)), Errc::bad_container, Step::open);
    }
    for (const std::string text : {"[]", "[1]", "[1,[[2,2,3],[0,1,3]],1]"}) {
      check_refused(altered_entry([&](json& e) { e["matrices"][0] = json::parse(text); }),
                    Errc::corrupt_data, Step::open);
    }
  }

  TEST_CASE("a width outside the set") {
    for (const std::int64_t bits :
         {std::int64_t{5}, std::int64_t{7}, std::int64_t{9}, std::int64_t{16}, std::int64_t{99},
          std::int64_t{100}, (std::int64_t{1} << 32) + 2, INT64_MAX}) {
      check_refused(altered_entry([&](json& e) { classes(e)[0][0] = bits; }), Errc::corrupt_data,
                    Step::open);
    }
  }

  TEST_CASE("a scale that is no finite number") {
    for (const json& value :
         {json(nullptr), json("1"), json("NaN"), json(json::array()), json(true)}) {
      check_refused(altered_entry([&](json& e) { scale(e) = value; }), Errc::corrupt_data,
                    Step::open);
    }
    const Folder folder;
    write_small(folder / "a");
    Draft draft(folder / "a");
    scale(draft.entry("w")) = 42424242;
    for (const char* value : {"NaN", "nan", "Infinity", "-Infinity", "1e999", "-1e999"}) {
      std::string text = draft.manifest.dump();
      text.replace(text.find("42424242"), 8, value);
      draft.write(folder / "b", text);
      CHECK(refusal(folder / "b").error.code() == Errc::bad_container);
    }
  }

  TEST_CASE("a feature that is required and unknown") {
    const Error error = altered([](Draft& draft) { draft.manifest["requires"] = {"x"}; }).error;
    CHECK(error.code() == Errc::unsupported_version);
    CHECK(names(error, "it requires 'x'"));
    for (const json& value : {json("x"), json({1}), json({{"x", 1}}), json(nullptr)}) {
      CHECK(altered([&](Draft& draft) { draft.manifest["requires"] = value; }).error.code() ==
            Errc::bad_container);
    }
    const Folder folder;
    const auto expected = write_small(folder / "a");
    Draft draft(folder / "a");
    draft.manifest["requires"] = json::array();
    draft.write(folder / "b");
    CHECK(read_all(folder / "b") == expected);
  }

  TEST_CASE("a stack that does not fit the shape") {
    for (const char* stack : {"[]", "[1]", "[8,12]", "[1,8,12,1]", "[1,8,11]", "[1,9,12]",
                              "[0,8,12]", "[0,0,0]", "[1,0,12]", "[2,4,12]", "[96,1,1]"}) {
      CAPTURE(stack);
      check_refused(altered_entry([&](json& e) { e["stack"] = json::parse(stack); }),
                    Errc::corrupt_data, Step::open);
    }
    for (const char* stack :
         {"null", "{}", "[1,8,-12]", "[1,8.0,12]", "[1,\"8\",12]", "[1,8,9223372036854775808]"}) {
      CAPTURE(stack);
      check_refused(altered_entry([&](json& e) { e["stack"] = json::parse(stack); }),
                    Errc::bad_container, Step::open);
    }
  }

  TEST_CASE("a stack of as many elements, in rows that are not the shape's") {
    // The number of patches is the same: only the stack distinguishes 8 x 12 from 12 x 8.
    check_refused(altered_entry([](json& e) {
                    e["stack"] = {1, 12, 8};
                  }),
                  Errc::corrupt_data, Step::open);
    // The rows that the base lacks would be out of reach: 6 x 4 elements do not make rows of 16.
    check_refused(altered_entry(
                      [](json& e) {
                        e["stack"] = {1, 2, 8};
                        classes(e) = json::parse("[[2,2,2],[0,1,2]]");
                      },
                      "g"),
                  Errc::corrupt_data, Step::open, ": g");
  }

  TEST_CASE("a stack that overflows") {
    for (const char* stack :
         {"[4294967296,4294967296,4294967296]", "[1,4611686018427387904,4]",
          "[1,6148914691236517206,3]", "[1,9223372036854775807,9223372036854775807]",
          "[1,1537228672809129302,12]", "[9223372036854775807,2,48]"}) {
      CAPTURE(stack);
      check_refused(altered_entry([&](json& e) { e["stack"] = json::parse(stack); }),
                    Errc::corrupt_data, Step::open);
    }
  }

  TEST_CASE("an empty tensor with a stack of endless rows or columns is refused") {
    for (const char* stack : {"[1,4611686018427387904,0]", "[1,0,4611686018427387904]"}) {
      CAPTURE(stack);
      const Folder folder;
      write_small(folder / "a");
      Draft draft(folder / "a");
      json& e = draft.entry("w");
      e["shape"] = {0, 12};
      e["stack"] = json::parse(stack);
      classes(e) = json::array();
      draft.replace("delta:w", {});
      draft.seal("w");
      draft.entry("t")["shape"] = {0, 12};
      draft.write(folder / "b");
      largest_request = 0;
      CHECK(refusal(folder / "b").error.code() == Errc::corrupt_data);
      CHECK(largest_request < 1'000'000);
    }
  }

  TEST_CASE("matrices that the stack does not have") {
    check_refused(altered_entry([](json& e) { e["matrices"] = json::array(); }), Errc::corrupt_data,
                  Step::open);
    check_refused(altered_entry([](json& e) { e["matrices"].push_back(e["matrices"][0]); }),
                  Errc::corrupt_data, Step::open);
    // As many matrices as the stack says, but each with the patches of the whole.
    check_refused(altered_entry([](json& e) {
                    e["stack"] = {2, 4, 12};
                    e["matrices"].push_back(e["matrices"][0]);
                  }),
                  Errc::corrupt_data, Step::open);
  }

  TEST_CASE("a tensor that grew or shrank, of a base it cannot come from") {
    for (const char* shape : {"[6,4]", "[7,4]", "[4,5]", "[4]", "[]", "[4,4,1]", "[24]"}) {
      CAPTURE(shape);
      check_refused(altered_entry([&](json& e) { e["base_shape"] = json::parse(shape); }, "g"),
                    Errc::corrupt_data, Step::open, ": g");
    }
    for (const char* shape : {"[4,4]", "[3,4]", "[5,5]", "[5]", "[]", "[5,4,1]"}) {
      CAPTURE(shape);
      check_refused(altered_entry([&](json& e) { e["base_shape"] = json::parse(shape); }, "k"),
                    Errc::corrupt_data, Step::open, ": k");
    }
    // The base fits, but not the stored data: one row too few, or too many, of both kinds.
    check_refused(altered_entry(
                      [](json& e) {
                        e["base_shape"] = {3, 4};
                      },
                      "g"),
                  Errc::corrupt_data, Step::open, ": g");
    check_refused(altered_entry(
                      [](json& e) {
                        e["base_shape"] = {5, 4};
                      },
                      "g"),
                  Errc::corrupt_data, Step::open, ": g");
    check_refused(altered_entry(
                      [](json& e) {
                        e["shape"] = {7, 4};
                      },
                      "g"),
                  Errc::corrupt_data, Step::read, ": g");
  }

  TEST_CASE("modes that need a base without one, and one that has none with one") {
    for (const std::string name : {"w", "r", "s", "g", "k", "o"}) {
      check_refused(altered_entry(
                        [](json& e) {
                          e.erase("base");
                          e.erase("base_shape");
                        },
                        name),
                    Errc::corrupt_data, Step::open, (": " + name).c_str());
    }
    check_refused(altered_entry([](json& e) { e["base"] = "0123456789abcdef"; }, "n"),
                  Errc::corrupt_data, Step::open, ": n");
  }

  TEST_CASE("a mode that what is stored does not fit") {
    const auto mode = [](const char* name, const char* value) {
      return altered_entry([&](json& e) { e["mode"] = value; }, name);
    };
    check_refused(mode("w", "same"), Errc::corrupt_data, Step::open);
    check_refused(mode("w", "removed"), Errc::corrupt_data, Step::open, ": t");
    check_refused(mode("w", "lossless"), Errc::bad_container, Step::open);
    check_refused(mode("w", "grown"), Errc::corrupt_data, Step::open);
    check_refused(mode("w", "shrunk"), Errc::corrupt_data, Step::open);
    check_refused(mode("w", "added"), Errc::corrupt_data, Step::open);
    check_refused(mode("w", "tied"), Errc::bad_container, Step::open);
    check_refused(mode("r", "delta"), Errc::bad_container, Step::open, ": r");
    check_refused(mode("r", "added"), Errc::corrupt_data, Step::open, ": r");
    check_refused(mode("n", "lossless"), Errc::corrupt_data, Step::open, ": n");
    check_refused(mode("g", "delta"), Errc::corrupt_data, Step::open, ": g");
    check_refused(mode("g", "shrunk"), Errc::corrupt_data, Step::open, ": g");
    check_refused(mode("k", "grown"), Errc::corrupt_data, Step::open, ": k");
    check_refused(mode("s", "lossless"), Errc::bad_container, Step::open, ": s");
  }

  TEST_CASE("a tensor that is said to be the base's, under another fingerprint") {
    check_refused(altered_entry([](json& e) { e["tuned"] = "0123456789abcdef"; }, "s"),
                  Errc::corrupt_data, Step::open, ": s");
  }

  TEST_CASE("a huge shape is refused without an allocation of its size") {
    const auto huge = [](const char* shape, int patch, const char* widths) {
      const Folder folder;
      write_small(folder / "a");
      Draft draft(folder / "a");
      json& e = draft.entry("w");
      draft.manifest["codecs"].push_back(draft.manifest["codecs"][0]);
      draft.manifest["codecs"][1]["patch"] = patch;
      e["codec"] = 1;
      e["shape"] = json::parse(shape);
      json other = draft.entry("s");  // replaces the tensor tied to "w"
      other["name"] = "t";
      draft.entry("t") = other;
      if (e["shape"].size() == 2) e["stack"] = {1, e["shape"][0], e["shape"][1]};
      classes(e) = json::parse(widths);
      draft.write(folder / "b");
      largest_request = 0;
      const Refusal found = refusal(folder / "b");
      INFO(std::string(found.error.what()));
      CHECK(found.error.code() == Errc::corrupt_data);
      CHECK(names(found.error, ": w"));
      CHECK(largest_request < 1'000'000);
    };
    huge("[1099511627776,1099511627776]", 4, "[[2,2,3],[0,1,3]]");
    huge("[1099511627776,1099511627776,0]", 4, "[[2,2,3],[0,1,3]]");
    huge("[0,1099511627776,1099511627776]", 4, "[]");
    huge("[1073741824,1073741824]", 64, "[[2,2,281474976710655],[0,1,1]]");
    huge("[4611686018427387904]", 4, "[[2,2,3],[0,1,3]]");
    huge("[1048576,1048576]", 64, "[[2,2,268435456]]");
    huge("[1048576,1048576]", 64, "[[0,1,268435456]]");
    huge("[1048576,1048576]", 64, "[[2,2,134217728],[0,1,134217728]]");
    huge("[1048576,1048576]", 64,
         "[[8,2,268435456],[6,2,0],[4,2,0],[3,2,0],[2,2,0],[1,2,0],[0,1,0]]");
  }
}
