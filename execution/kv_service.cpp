#include "execution/kv_service.hpp"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <optional>
#include <utility>

#include "base/prng.hpp"
#include "crypto/digest.hpp"
#include "execution/slot_layout.hpp"

namespace zz::execution {

namespace {

using state::kObjectBytesMax;
using state::ObjectId;

constexpr unsigned kHashBits = 51;
constexpr std::uint64_t kObjectsOfBucketMax = std::uint64_t{1} << (63 - kHashBits);
constexpr std::size_t kLengthBytes = 4;                         // of the whole bucket, in front of it
constexpr std::size_t kEntryBytes = 2 * sizeof(std::uint32_t);  // lengths of key and value, in front of them
static_assert(KvService::kBucketBytesMax / kObjectBytesMax < kObjectsOfBucketMax);

// The text up to the first space, and what follows it.
std::pair<std::string_view, std::string_view> cut(std::string_view text) {
  const std::size_t space = text.find(' ');
  if (space == std::string_view::npos) return {text, {}};
  return {text.substr(0, space), text.substr(space + 1)};
}

std::optional<std::int64_t> integer(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

SharedBytes reply(std::string_view text) {
  static const SharedBytes ok = SharedBytes::copy("ok");  // most often
  return text == ok.text() ? ok : SharedBytes::copy(text);
}

std::uint32_t u32_at(ByteView bytes, std::size_t at) {
  layout::Reader in(bytes.subspan(at, sizeof(std::uint32_t)));
  return in.u32();
}

// The bucket of one key in this state. What is malformed reads as if it ended there: replicas agree about that too.
class Bucket {
 public:
  // The state says so if something is absent.
  Bucket(ServiceState& state, std::string_view key) : state_(state), key_(key) {
    const Digest hash = crypto::sha256(as_bytes(key));
    std::uint64_t bits = 0;
    for (std::size_t i = 0; i < 8; ++i) bits = bits << 8 | hash.bytes[i];
    first_ = ObjectId{(bits >> (64 - kHashBits)) << (63 - kHashBits)};
    read();
    find();
  }

  // Of the key.
  [[nodiscard]] std::optional<std::string_view> value() const {
    if (!found_) return std::nullopt;
    return as_text(bytes_.view().subspan(at_ + kEntryBytes + key_.size(), length_ - kEntryBytes - key_.size()));
  }

  // False: it would be too long.
  bool put(std::string_view value) { return replace(value); }
  void erase() { replace(std::nullopt); }

 private:
  void read() {
    const auto head = state_.read(first_);
    if (!head || head->size() < kLengthBytes) return;
    objects_ = 1;
    const std::size_t total = kLengthBytes + std::size_t{u32_at(head->view(), 0)};
    if (total <= head->size()) {
      bytes_ = head->slice(kLengthBytes, total - kLengthBytes);
      return;
    }
    Bytes all(head->view().begin(), head->view().end());
    for (; all.size() < total && objects_ < kObjectsOfBucketMax; ++objects_) {
      const auto part = state_.read(ObjectId{first_.value + objects_});
      if (part) {
        all.insert(all.end(), part->view().begin(), part->view().end());
      } else if (state_.missing().empty()) {
        break;
      } else {
        all.resize(all.size() + kObjectBytesMax);  // all that matters yet is what else is absent
      }
    }
    const std::size_t size = std::min(all.size(), total) - kLengthBytes;
    bytes_ = SharedBytes(std::move(all)).slice(kLengthBytes, size);
  }

  void find() {
    const ByteView all = bytes_.view();
    at_ = 0;
    while (all.size() - at_ >= kEntryBytes) {
      const std::size_t key_bytes = u32_at(all, at_);
      const std::size_t value_bytes = u32_at(all, at_ + sizeof(std::uint32_t));
      const std::size_t length = kEntryBytes + key_bytes + value_bytes;
      if (length > all.size() - at_) return;
      const std::string_view key = as_text(all.subspan(at_ + kEntryBytes, key_bytes));
      if (key >= key_) {
        found_ = key == key_;
        length_ = found_ ? length : 0;
        return;
      }
      at_ += length;
    }
  }

  // The key gets this value, or none.
  bool replace(std::optional<std::string_view> value) {
    const ByteView all = bytes_.view();
    const std::size_t total = all.size() - length_ + (value ? kEntryBytes + key_.size() + value->size() : 0);
    if (total > KvService::kBucketBytesMax) return false;
    layout::Writer out(kLengthBytes + total);
    out.u32(static_cast<std::uint32_t>(total));
    Bytes& bytes = out.bytes();
    const ByteView before = all.subspan(0, at_);
    const ByteView after = all.subspan(at_ + length_);
    bytes.insert(bytes.end(), before.begin(), before.end());
    if (value) {
      out.u32(static_cast<std::uint32_t>(key_.size()));
      out.u32(static_cast<std::uint32_t>(value->size()));
      bytes.insert(bytes.end(), key_.begin(), key_.end());
      bytes.insert(bytes.end(), value->begin(), value->end());
    }
    bytes.insert(bytes.end(), after.begin(), after.end());
    std::uint64_t objects = 0;
    if (total > 0 && bytes.size() <= kObjectBytesMax) {
      state_.write(first_, std::move(bytes));
      objects = 1;
    } else if (total > 0) {
      for (std::size_t at = 0; at < bytes.size(); at += kObjectBytesMax, ++objects) {
        const auto from = bytes.begin() + static_cast<std::ptrdiff_t>(at);
        const auto size = static_cast<std::ptrdiff_t>(std::min(kObjectBytesMax, bytes.size() - at));
        state_.write(ObjectId{first_.value + objects}, Bytes(from, from + size));
      }
    }
    for (; objects < objects_; ++objects) state_.erase(ObjectId{first_.value + objects});
    return true;
  }

  ServiceState& state_;
  std::string_view key_;
  ObjectId first_;
  std::uint64_t objects_ = 0;  // it has now
  SharedBytes bytes_;          // of all of them, without the length in front
  std::size_t at_ = 0;         // where the key's entry is, or belongs
  std::size_t length_ = 0;     // of its entry, if it is there
  bool found_ = false;
};

std::string add(Bucket& bucket, std::string_view amount) {
  const auto value = bucket.value();
  const auto old = value ? integer(*value) : std::optional<std::int64_t>(0);
  const auto step = integer(amount);
  std::int64_t sum = 0;
  if (!old || !step) return "error not an integer";
  if (__builtin_add_overflow(*old, *step, &sum)) return "error out of range";
  std::string text = std::to_string(sum);
  return bucket.put(text) ? text : "error full";
}

// The letters of one value of fill.
std::string filling(std::string_view key, std::size_t size) {
  const Digest hash = crypto::sha256(as_bytes(key));
  std::uint64_t seed = 0;
  for (std::size_t i = 0; i < sizeof seed; ++i) seed = seed << 8 | hash.bytes[i];
  Prng prng(seed);
  std::string out(size, 'a');
  for (std::size_t at = 0; at < size;) {
    for (std::uint64_t letters = prng.next(); letters > 15 && at < size; letters >>= 4) {
      out[at++] = static_cast<char>('a' + (letters & 15));
    }
  }
  return out;
}

// What follows "fill ".
std::string fill(ServiceState& state, std::string_view rest) {
  const auto [key, numbers] = cut(rest);
  const auto [count_text, size_text] = cut(numbers);
  const auto count = integer(count_text);
  const auto size = integer(size_text);
  const auto within = [](std::optional<std::int64_t> value, std::uint64_t most) {
    return value && *value > 0 && static_cast<std::uint64_t>(*value) <= most;
  };
  if (key.empty() || !within(count, KvService::kFillKeysMax) || !within(size, KvService::kFillBytesMax) ||
      static_cast<std::uint64_t>(*count * *size) > KvService::kFillBytesMax) {
    return "error expected fill KEY N SIZE, with N and N * SIZE within limits";
  }
  for (std::int64_t i = 0; i < *count; ++i) {
    const std::string name = std::string(key) + std::to_string(i);
    if (name.size() > KvService::kKeyBytesMax) return "error key too long";
    Bucket bucket(state, name);
    if (!bucket.put(filling(name, static_cast<std::size_t>(*size)))) return "error full";
  }
  return "ok";
}

}  // namespace

std::optional<SharedBytes> KvService::execute(const Invocation& invocation, ServiceState& state) {
  const std::string_view op = invocation.op.text();
  const auto [verb, rest] = cut(op);
  if (op == "time") return reply(std::to_string(invocation.time.value));
  if (op == "seed") return reply(to_hex(invocation.seed.bytes));
  if (verb == "fill") {
    const std::string answer = fill(state, rest);
    return state.missing().empty() ? std::optional(reply(answer)) : std::nullopt;
  }
  const auto [key, value] = cut(rest);
  const bool has_value = key.size() < rest.size();
  const bool is_known = has_value ? verb == "put" || verb == "add" : verb == "del" || verb == "get";
  if (key.empty() || (!is_known && key.size() <= kKeyBytesMax)) {
    return reply("error expected put KEY VALUE, get KEY, del KEY, add KEY N, fill KEY N SIZE, time or seed");
  }
  if (key.size() > kKeyBytesMax) return reply("error key too long");
  Bucket bucket(state, key);
  if (!state.missing().empty()) return std::nullopt;
  if (verb == "put") return reply(bucket.put(value) ? "ok" : "error full");
  if (verb == "add") return reply(add(bucket, value));
  const auto found = bucket.value();
  if (!found) return reply("none");
  if (verb == "get") return reply(*found);
  bucket.erase();
  return reply("ok");
}

}  // namespace zz::execution
