// The index of a sharded model: names that lead elsewhere, and what the shards do not hold.
#include <deltadct/io/shard_index.hpp>

#include "sharded.hpp"

using namespace io_test;

TEST_SUITE("malformed names of shards") {
  void check_name(const std::string& name) {
    CAPTURE(name);
    const Sharded sharded;
    fs::create_directory(sharded.folder / "sub");
    fs::copy(sharded.folder / "c.safetensors", sharded.folder / "sub");
    json value = Sharded::sound();
    value["weight_map"]["c"] = name;
    CHECK(sharded.refuses(value) == Errc::bad_index);
    ReadOptions follow;
    follow.links = Links::follow;
    CHECK(sharded.refuses(value, follow) == Errc::bad_index);
  }

  TEST_CASE("parent folders") {
    check_name("..");
    check_name(".");
    check_name("../c.safetensors");
    check_name("sub/../c.safetensors");
    check_name("./c.safetensors");
  }

  TEST_CASE("folders below") {
    check_name("sub/c.safetensors");
    check_name("sub/");
  }

  TEST_CASE("absolute paths") {
    check_name("/c.safetensors");
    check_name("//c.safetensors");
    check_name("/dev/zero");
    const Folder folder;
    check_name((folder / "c.safetensors").string());
  }

  TEST_CASE("backslashes") {
    check_name("..\\c.safetensors");
    check_name("\\c.safetensors");
    check_name("sub\\c.safetensors");
  }

  TEST_CASE("drives and streams") {
    check_name("C:c.safetensors");
    check_name("C:\\c.safetensors");
    check_name("c.safetensors:stream");
  }

  TEST_CASE("control characters, and more than a file system takes") {
    for (const char* name : {"c\n", "\x1b]0;title\x07", "\x7F", "\xC2\x9B", "\xC2\x85"}) {
      check_name(name);
    }
    check_name(std::string(256, 'c'));
  }

  TEST_CASE("the empty name") {
    check_name("");
  }

  TEST_CASE("NUL") {
    check_name(std::string("c.safetensors\0.txt", 18));
  }
}

TEST_SUITE("malformed shards") {
  TEST_CASE("a tensor in two of them: the one that the index names") {
    const Sharded sharded;
    const Tensor other = noise("b", DType::f32, {7}, 4);
    write_model(sharded.folder / "c.safetensors", std::vector{sharded.c, other});
    const Error error = sharded.refused(kStrict);
    CHECK(error.code() == Errc::bad_index);
    CHECK(names(error, kIndex + ": b"));
    for (const bool first : {true, false}) {
      json value = Sharded::sound();
      value["weight_map"]["b"] = first ? "a.safetensors" : "c.safetensors";
      sharded.index(value);
      const Model model = Model::open(sharded.folder.path);
      check_holds(model, {sharded.a, first ? sharded.b : other, sharded.c});
      CHECK(model.shard_path(*model.find("b")).filename() ==
            (first ? "a.safetensors" : "c.safetensors"));
      check_warns(model, {{kIndex + ": b", "in several shards; the one that the index names"}});
    }
  }

  TEST_CASE("a tensor in two of them, and not in the index: the last") {
    const Sharded sharded;
    const Tensor other = noise("b", DType::f32, {7}, 4);
    write_model(sharded.folder / "c.safetensors", std::vector{other, sharded.c});
    sharded.index(weights({{"a", "a.safetensors"}, {"c", "c.safetensors"}}));
    const Model model = Model::open(sharded.folder.path);
    check_holds(model, {sharded.a, other, sharded.c});
    check_warns(model, {{kIndex + ": b", "not in the index; the last is used"}});
    CHECK(sharded.refused(kStrict).code() == Errc::bad_index);
  }

  TEST_CASE("a tensor in the index that its shard lacks") {
    const Sharded sharded;
    json value = Sharded::sound();
    value["weight_map"]["d"] = "c.safetensors";
    CHECK(sharded.refuses(value, kStrict) == Errc::bad_index);
    CHECK(names(sharded.refused(kStrict), ": d"));
    const Model none = Model::open(sharded.folder.path);
    check_holds(none, {sharded.a, sharded.b, sharded.c});
    check_warns(none, {{kIndex + ": d", "in no shard, though the index says 'c.safetensors'"}});
  }

  TEST_CASE("a tensor in another shard than the index says") {
    const Sharded sharded;
    json value = Sharded::sound();
    value["weight_map"]["b"] = "c.safetensors";
    CHECK(sharded.refuses(value, kStrict) == Errc::bad_index);
    CHECK(names(sharded.refused(kStrict), ": b"));
    const Model other = Model::open(sharded.folder.path);
    check_holds(other, {sharded.a, sharded.b, sharded.c});
    check_warns(other, {{kIndex + ": b", "in another shard than the index says; it is used"}});
  }

  TEST_CASE("a tensor in a shard that the index lacks") {
    const Sharded sharded;
    CHECK(sharded.refuses(weights({{"a", "a.safetensors"}, {"c", "c.safetensors"}}), kStrict) ==
          Errc::bad_index);
    CHECK(names(sharded.refused(kStrict), ": b"));
    const Model model = Model::open(sharded.folder.path);
    check_holds(model, {sharded.a, sharded.b, sharded.c});
    check_warns(model, {{kIndex + ": b", "used, as by transformers 5, vLLM and mlx-lm"}});
  }

  TEST_CASE("many tensors that the index lacks are one warning") {
    const Folder folder;
    const auto tensors = some_tensors(9);
    write_sharded(folder.path, cut(tensors, 3));
    json index = json::parse(text_of(get(folder / kIndex)));
    index["metadata"] = json::object();
    for (const std::size_t i : {4U, 1U, 8U, 7U}) index["weight_map"].erase(name_of(i));
    put(folder / kIndex, bytes_of(index.dump()));
    const Model model = Model::open(folder.path);
    check_holds(model, tensors);
    for (std::size_t i = 0; i < 9; ++i) CHECK(model.tensors()[i].name == name_of(i));
    check_warns(model, {{kIndex + ": t1", "(and 3 more)"}});
  }
}

TEST_SUITE("malformed indices") {
  json with_total(json total) {
    json value = Sharded::sound();
    value["metadata"] = {{"total_size", std::move(total)}};
    return value;
  }

  TEST_CASE("total_size is that of the tensors, or absent") {
    const Sharded sharded;
    sharded.index(with_total(12 + 5 + 8));
    CHECK(Model::open(sharded.folder.path).tensors().size() == 3);
    json value = Sharded::sound();
    value["metadata"] = json::object();
    sharded.index(value);
    CHECK(Model::open(sharded.folder.path).tensors().size() == 3);
  }

  TEST_CASE("total_size that lies") {
    const Sharded sharded;
    for (const std::int64_t total :
         {std::int64_t{24}, std::int64_t{26}, std::int64_t{0}, std::int64_t{0x7FFFFFFFFFFFFFFF}}) {
      CHECK(sharded.refuses(with_total(total), kStrict) == Errc::bad_index);
      const Model model = Model::open(sharded.folder.path);
      check_holds(model, {sharded.a, sharded.b, sharded.c});
      check_warns(model,
                  {{kIndex, "total_size is " + std::to_string(total) +
                                ", the tensors have 25 bytes; transformers, vLLM and mlx-lm"}});
    }
  }

  TEST_CASE("total_size that is no plain number") {
    const Sharded sharded;
    for (const json& total : {json(-25), json(25.0), json(25.5), json("25"), json(nullptr),
                              json(true), json::array({25}), json(~std::uint64_t{0})}) {
      CAPTURE(total.dump());
      CHECK(sharded.refuses(with_total(total), kStrict) == Errc::bad_container);
      const Model model = Model::open(sharded.folder.path);
      check_holds(model, {sharded.a, sharded.b, sharded.c});
      check_warns(model, {{kIndex, "total_size is not an integer"}});
    }
  }

  TEST_CASE("what is not JSON") {
    const Sharded sharded;
    for (const std::string text : {"", "{", "weight_map", R"({"weight_map":{}}})",
                                   R"({"weight_map":{},})", "{'weight_map':{}}"}) {
      CAPTURE(text);
      CHECK(sharded.refuses_text(text) == Errc::bad_container);
    }
    CHECK(sharded.refuses_text(Sharded::sound().dump() + std::string(1, '\0')) ==
          Errc::bad_container);
    CHECK(sharded.refuses_text("\xEF\xBB\xBF" + Sharded::sound().dump()) == Errc::bad_container);
    const std::string whole = Sharded::sound().dump();
    for (std::size_t length = 0; length < whole.size(); ++length) {
      CHECK(sharded.refuses_text(whole.substr(0, length)) == Errc::bad_container);
    }
  }

  TEST_CASE("what is no object") {
    const Sharded sharded;
    for (const std::string text : {"[]", "3", "\"weight_map\"", "null"}) {
      CHECK(sharded.refuses_text(text) == Errc::bad_container);
    }
  }

  TEST_CASE("no weight_map") {
    const Sharded sharded;
    CHECK(sharded.refuses(json::object()) == Errc::bad_index);
    CHECK(sharded.refuses(json{{"metadata", json::object()}}) == Errc::bad_index);
  }

  TEST_CASE("a weight_map that is no object, and metadata, which matter to nobody") {
    const Sharded sharded;
    for (const json& value : {json::array(), json("a"), json(3), json(nullptr)}) {
      CHECK(sharded.refuses(json{{"weight_map", value}}) == Errc::bad_index);
      json other = Sharded::sound();
      other["metadata"] = value;
      CHECK(sharded.refuses(other, kStrict) == Errc::bad_index);
      const Model model = Model::open(sharded.folder.path);
      check_holds(model, {sharded.a, sharded.b, sharded.c});
      check_warns(model, {{kIndex, "metadata is not an object"}});
    }
  }

  TEST_CASE("a tensor that is mapped to no string") {
    const Sharded sharded;
    for (const json& value :
         {json::array({"c.safetensors"}), json(3), json(nullptr), json::object()}) {
      json index = Sharded::sound();
      index["weight_map"]["c"] = value;
      CHECK(sharded.refuses(index) == Errc::bad_container);
    }
  }

  TEST_CASE("a key twice, at any level, however it is escaped") {
    const Sharded sharded;
    const std::string map = Sharded::sound()["weight_map"].dump();
    CHECK(sharded.refuses_text(R"({"weight_map":)" + map + R"(,"weight_map":)" + map + "}") ==
          Errc::bad_container);
    CHECK(sharded.refuses_text(R"({"weight_map":{"a":"a.safetensors","b":"a.safetensors",)"
                               R"("c":"c.safetensors","\u0061":"a.safetensors"}})") ==
          Errc::bad_container);
  }

  TEST_CASE("nested too deep") {
    const Sharded sharded;
    ReadOptions options;
    options.limits.depth = 3;  // as deep as a shard's header
    const auto nested = [](std::size_t depth) {
      return R"({"x":)" + std::string(depth, '[') + std::string(depth, ']') +
             R"(,"weight_map":{"a":"a.safetensors","b":"a.safetensors","c":"c.safetensors"}})";
    };
    sharded.index(nested(2));
    CHECK(Model::open(sharded.folder.path, options).tensors().size() == 3);
    CHECK(sharded.refuses_text(nested(3), options) == Errc::bad_container);
    CHECK(sharded.refuses_text(nested(100000)) == Errc::bad_container);
  }

  TEST_CASE("more tensors, shards or bytes than are accepted") {
    const Sharded sharded;
    ReadOptions options;
    options.limits.tensors = 3;
    CHECK(Model::open(sharded.folder.path, options).tensors().size() == 3);
    options.limits.tensors = 2;
    CHECK(sharded.refused(options).code() == Errc::limit_exceeded);
    options = {};
    options.limits.shards = 2;
    CHECK(Model::open(sharded.folder.path, options).shards() == 2);
    options.limits.shards = 1;
    CHECK(sharded.refused(options).code() == Errc::limit_exceeded);
    options = {};
    options.limits.header_bytes = 300;
    CHECK(Model::open(sharded.folder.path, options).shards() == 2);
    CHECK(sharded.refuses_text(Sharded::sound().dump() + std::string(300, ' '), options) ==
          Errc::limit_exceeded);
  }

  TEST_CASE("more tensors in the shards than are accepted in all, though in none alone") {
    const Folder folder;
    write_sharded(folder.path, cut(some_tensors(6), 2));
    ReadOptions options;
    options.limits.tensors = 6;
    CHECK(Model::open(folder.path, options).tensors().size() == 6);
    options.limits.tensors = 5;
    CHECK(caught([&] { Model::open(folder.path, options); }).code() == Errc::limit_exceeded);
  }

  TEST_CASE("an index is parsed without files") {
    const auto index = io::parse_shard_index(
        R"({"metadata":{"total_size":7},"weight_map":{"x":"b","y":"a","z":"b"}})", "where");
    CHECK(index.total_size == 7);
    REQUIRE(index.shards.size() == 2);
    CHECK(index.shards.at("a") == std::vector<std::string>{"y"});
    CHECK(index.shards.at("b") == std::vector<std::string>{"x", "z"});
    const auto again = io::parse_shard_index(io::shard_index_text(index), "where");
    CHECK(again.shards == index.shards);
    CHECK(again.total_size == index.total_size);
    const Error error = caught([] { io::parse_shard_index("{}", "the place"); });
    CHECK(error.where() == "the place");
  }
}
