// Strict JSON: what a lenient parser accepts (repeated keys, a byte-order mark, a NUL) is an error.
//
// The grammar is nlohmann/json's (MIT, 3.11 or later): header-only, fuzzed for years, and widely
// packaged. Its SAX interface reports one event at a time, so a text that is too deep or too large
// is refused as soon as this shows, before anything is built from the rest.
#pragma once

#include <deltadct/config.hpp>
#include <deltadct/core/error.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <limits>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

namespace deltadct { inline namespace DELTADCT_ABI { namespace io {

/// The most values in one text. The limit keeps memory within a small multiple of the text.
inline constexpr std::size_t kMaxJsonValues = 10'000'000;

/// Receives the members of an object one by one.
using JsonMemberSink = std::function<void(const std::string& key, nlohmann::json&& value)>;

/// Receives the items of one member, which is an array, one by one.
struct JsonItems {
  std::string key;
  std::function<void(nlohmann::json&& item)> sink;
};

namespace detail {

using deltadct::printable;
using deltadct::detail::has_controls;
using deltadct::detail::shortened;

/// Iterates over a text and counts, because the parser does not tell its handler where it is.
class CountingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  CountingIterator(const char* at, std::size_t* count) noexcept : at_(at), count_(count) {}

  reference operator*() const noexcept { return *at_; }
  CountingIterator& operator++() noexcept {
    ++at_;
    ++*count_;
    return *this;
  }
  CountingIterator operator++(int) noexcept {
    const CountingIterator before = *this;
    ++*this;
    return before;
  }
  bool operator==(const CountingIterator& other) const noexcept { return at_ == other.at_; }
  bool operator!=(const CountingIterator& other) const noexcept { return at_ != other.at_; }

 private:
  const char* at_;
  std::size_t* count_;
};

/// Limits that are checked before anything is built.
struct JsonBounds {
  int depth;
  std::size_t values;                                           ///< held at once
  std::size_t items = std::numeric_limits<std::size_t>::max();  ///< of one array
};

/// Builds values from the parser's events, and throws to refuse a text. With a sink, the outermost
/// value must be an object; its members are passed to the sink and not kept. The items of one
/// member can go to a sink of their own; the member itself follows as an empty array.
class StrictJsonHandler final : public nlohmann::json_sax<nlohmann::json> {
  using json = nlohmann::json;

 public:
  StrictJsonHandler(std::string_view where, JsonBounds bounds, const JsonMemberSink* sink,
                    const JsonItems* items)
      : where_(where), bounds_(bounds), sink_(sink), items_(items) {}

  /// The number of bytes that the parser has taken; CountingIterator advances it.
  std::size_t* bytes_read() noexcept { return &bytes_read_; }
  json take_root() { return std::move(root_); }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return refuse("binary value"); }  // never met in a text
  bool start_object(std::size_t) override { return open(json::object()); }
  bool start_array(std::size_t) override { return open(json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  // The key is already decoded, so "a" and "\u0061" are the same key.
  bool key(string_t& key) override {
    if (key.find('\0') != string_t::npos) refuse("NUL in the key '" + shortened(key) + "'");
    if (!is_new(key)) refuse("repeated key '" + shortened(key) + "'");
    keys_.back() = std::move(key);
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    bytes_read_ = std::min(position, bytes_read_);
    // The library quotes the last token, which may be huge and need not be UTF-8.
    std::string_view text = error.what();
    text = text.substr(0, text.find("; last read"));
    const auto id_end = text.find("] ");
    return refuse(id_end == text.npos ? text : text.substr(id_end + 2));
  }

 private:
  /// The limit on tensors bounds the values of a text, too.
  static constexpr const char* kMoreTensors = "; --limit tensors=NUMBER allows more";

  [[noreturn]] bool refuse(std::string_view what, Errc code = Errc::bad_container,
                           const char* advice = "") const {
    throw Error(code, where_,
                std::string(what) + " at byte " + std::to_string(bytes_read_) + advice);
  }

  bool streams_members() const noexcept { return sink_ != nullptr && open_.size() == 1; }

  bool is_at_items() const noexcept {
    return items_ != nullptr && streams_members() && keys_.back() == items_->key;
  }
  bool streams_items() const noexcept {
    return items_ != nullptr && open_.size() == 2 && keys_.front() == items_->key;
  }

  void require_items(bool is_array) const {
    if (is_at_items() && !is_array) refuse(items_->key + " is not an array");
  }

  bool is_new(const std::string& key) {
    return streams_members() ? seen_.insert(key).second : !open_.back().contains(key);
  }

  void count_value() {
    if (++values_ <= bounds_.values) return;
    refuse("too many values", Errc::limit_exceeded,
           bounds_.values < kMaxJsonValues ? kMoreTensors : "");
  }

  /// Counts an item of the innermost open array. An error names the member that holds the array.
  void count_item(std::size_t before) const {
    if (before < bounds_.items) return;
    const auto key = std::find_if(keys_.rbegin(), keys_.rend(),
                                  [](const std::string& name) { return !name.empty(); });
    refuse("too many " + (key == keys_.rend() ? "items" : *key), Errc::limit_exceeded,
           kMoreTensors);
  }

  bool open(json&& empty) {
    if (open_.size() >= static_cast<std::size_t>(std::max(bounds_.depth, 0))) {
      refuse("nested more than " + std::to_string(bounds_.depth) + " deep", Errc::bad_container,
             "; --limit depth=NUMBER allows more");
    }
    if (sink_ != nullptr && open_.empty() && !empty.is_object()) refuse("not an object");
    require_items(empty.is_array());
    count_value();
    open_.push_back(std::move(empty));
    keys_.emplace_back();
    return true;
  }

  bool close() {
    json value = std::move(open_.back());
    open_.pop_back();
    keys_.pop_back();
    return attach(std::move(value));
  }

  bool add(json&& value) {
    if (sink_ != nullptr && open_.empty()) refuse("not an object");
    require_items(false);
    count_value();
    return attach(std::move(value));
  }

  bool attach(json&& value) {
    if (open_.empty()) {
      root_ = std::move(value);
    } else if (streams_members()) {
      values_ = 0;
      (*sink_)(keys_.back(), std::move(value));
    } else if (streams_items()) {
      values_ = 0;
      count_item(streamed_++);
      items_->sink(std::move(value));
    } else if (open_.back().is_array()) {
      count_item(open_.back().size());
      open_.back().push_back(std::move(value));
    } else {
      open_.back().emplace(std::move(keys_.back()), std::move(value));
    }
    return true;
  }

  std::string where_;
  JsonBounds bounds_;
  const JsonMemberSink* sink_;
  const JsonItems* items_;
  std::size_t bytes_read_ = 0;
  std::size_t values_ = 0;
  std::size_t streamed_ = 0;
  json root_;
  std::vector<json> open_;         // the open values, outermost first
  std::vector<std::string> keys_;  // for each of them, the key of the member being read
  std::set<std::string> seen_;     // outermost keys; ordered, because hashes can be made to collide
};

inline nlohmann::json parse_strictly(std::string_view text, std::string_view where,
                                     JsonBounds bounds, const JsonMemberSink* sink,
                                     const JsonItems* items = nullptr) {
  const auto refuse = [&](std::string_view what, std::size_t offset) {
    throw Error(Errc::bad_container, where,
                std::string(what) + " at byte " + std::to_string(offset));
  };
  // The library would skip a byte-order mark and treat a NUL as the end of the text.
  if (text.substr(0, 3) == "\xEF\xBB\xBF") refuse("byte-order mark", 0);
  if (const auto nul = text.find('\0'); nul != text.npos) refuse("NUL", nul);
  StrictJsonHandler handler(where, bounds, sink, items);
  const CountingIterator first(text.data(), handler.bytes_read());
  const CountingIterator last(text.data() + text.size(), nullptr);
  nlohmann::json::sax_parse(first, last, &handler);
  return handler.take_root();
}

}  // namespace detail

/// Parses a whole text. Refuses what is not JSON, including bad UTF-8, and also repeated keys at
/// any level, however they are escaped; a NUL in a key; a byte-order mark; text after the value;
/// and nesting deeper than max_depth. Throws bad_container with `where` and the byte offset;
/// limit_exceeded for more than max_values values. Takes time n log n in the length of the text.
inline nlohmann::json parse_json(std::string_view text, std::string_view where, int max_depth = 16,
                                 std::size_t max_values = kMaxJsonValues) {
  return detail::parse_strictly(text, where, {max_depth, max_values}, nullptr);
}

/// Parses a text that is an object and passes its members to the sink in order of appearance, each
/// once it is complete. Memory is that of the largest member and of the keys. The rules are those
/// of parse_json(), with max_values counted per member. Exceptions from the sink pass through.
inline void parse_json_members(std::string_view text, std::string_view where,
                               const JsonMemberSink& sink, int max_depth = 16,
                               std::size_t max_values = kMaxJsonValues) {
  detail::parse_strictly(text, where, {max_depth, max_values}, &sink);
}

/// The same, except that the items of the member `items.key`, which must be an array, are passed
/// one by one, followed by the member as an empty array. max_values also applies to each item. An
/// array of more than max_items items anywhere throws limit_exceeded before the next item is built.
inline void parse_json_items(std::string_view text, std::string_view where,
                             const JsonMemberSink& sink, const JsonItems& items,
                             std::size_t max_items, int max_depth = 16,
                             std::size_t max_values = kMaxJsonValues) {
  detail::parse_strictly(text, where, {max_depth, max_values, max_items}, &sink, &items);
}

/// A member of an object. Throws bad_container if the value is not an object or has no such member.
inline const nlohmann::json& json_member(const nlohmann::json& object, const std::string& key,
                                         std::string_view where) {
  if (!object.is_object()) throw Error(Errc::bad_container, where, "not an object");
  const auto found = object.find(key);
  if (found == object.end()) throw Error(Errc::bad_container, where, key + " is missing");
  return *found;
}

/// Whether a number is written in plain digits and is at most 2^63 - 1, so that it also fits the
/// signed integers of other readers. Negative (even -0), fractional and exponent forms do not
/// count.
inline bool is_json_unsigned(const nlohmann::json& value) {
  constexpr auto kMost = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  return value.is_number_unsigned() && value.get<std::uint64_t>() <= kMost;
}

/// The value of such a number. Throws bad_container for anything else.
inline std::uint64_t json_unsigned(const nlohmann::json& value, std::string_view where,
                                   std::string_view what) {
  if (is_json_unsigned(value)) return value.get<std::uint64_t>();
  throw Error(Errc::bad_container, where,
              std::string(what) + " is not an integer from 0 to 2^63 - 1");
}

/// The value as a string. Throws bad_container if it is not one.
inline const std::string& json_string(const nlohmann::json& value, std::string_view where,
                                      std::string_view what) {
  if (value.is_string()) return value.get_ref<const std::string&>();
  throw Error(Errc::bad_container, where, std::string(what) + " is not a string");
}

/// The elements of an array. Throws bad_container if it is not an array.
inline const nlohmann::json::array_t& json_array(const nlohmann::json& value,
                                                 std::string_view where, std::string_view what) {
  if (value.is_array()) return value.get_ref<const nlohmann::json::array_t&>();
  throw Error(Errc::bad_container, where, std::string(what) + " is not an array");
}

/// A string as written in JSON, including its quotes. Throws bad_container for bad UTF-8.
inline std::string json_quoted(const std::string& text, std::string_view where) {
  try {
    return nlohmann::json(text).dump();
  } catch (const nlohmann::json::exception&) {
    throw Error(Errc::bad_container, where, "text is not valid UTF-8");
  }
}

}}}  // namespace deltadct::inline DELTADCT_ABI::io
