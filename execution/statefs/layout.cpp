#include "execution/statefs/layout.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "crypto/digest.hpp"

namespace zz::execution::statefs {
namespace {

constexpr std::uint8_t kVersion = 1;
constexpr std::uint32_t kNanosPerSecond = 1'000'000'000;

class Writer {
 public:
  explicit Writer(std::size_t size) { out_.reserve(size); }
  template <class T>
  Writer& number(T value) {  // little-endian
    for (std::size_t i = 0; i < sizeof(T); ++i) out_.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
    return *this;
  }
  Writer& time(const Time& time) { return number(static_cast<std::uint64_t>(time.seconds)).number(time.nanoseconds); }
  Writer& bytes(ByteView bytes) {
    out_.insert(out_.end(), bytes.begin(), bytes.end());
    return *this;
  }
  Bytes take() { return std::move(out_); }

 private:
  Bytes out_;
};

// Reads behind the end give zeros and make good() false.
class Reader {
 public:
  explicit Reader(ByteView bytes) : bytes_(bytes) {}
  template <class T>
  T number() {
    T value = 0;
    const ByteView from = bytes(sizeof(T));
    for (std::size_t i = 0; i < from.size(); ++i) value = static_cast<T>(value | T{from[i]} << (8 * i));
    return value;
  }
  Time time() {
    Time out;
    out.seconds = static_cast<std::int64_t>(number<std::uint64_t>());
    out.nanoseconds = number<std::uint32_t>();
    good_ = good_ && out.nanoseconds < kNanosPerSecond;
    return out;
  }
  ByteView bytes(std::size_t size) {
    good_ = good_ && size <= bytes_.size() - at_;
    if (!good_) return {};
    at_ += size;
    return bytes_.subspan(at_ - size, size);
  }
  void require(bool holds) { good_ = good_ && holds; }
  [[nodiscard]] bool good() const { return good_; }
  [[nodiscard]] std::size_t at() const { return at_; }
  [[nodiscard]] bool at_end() const { return at_ == bytes_.size(); }

 private:
  ByteView bytes_;
  std::size_t at_ = 0;
  bool good_ = true;
};

bool is_name(std::string_view name) {
  return !name.empty() && name.size() <= kNameBytesMax && name != "." && name != ".." &&
         name.find('/') == std::string_view::npos && name.find('\0') == std::string_view::npos;
}

bool is_type(std::uint32_t type) {
  switch (type) {
    case 001:  // fifo
    case 002:  // character device
    case 004:  // directory
    case 006:  // block device
    case 010:  // file
    case 012:  // symbolic link
    case 014:  // socket
      return true;
    default:
      return false;
  }
}

bool is_inode(Inode inode) { return inode.value >= kRootInode.value && inode.value <= kInodeMax; }

// What a record says must fit together.
bool is_possible(const Record& record) {
  if ((record.mode >> 16) != 0 || !is_type(record.mode >> 12)) return false;
  if (record.is_directory() ? !is_inode(record.parent) : record.parent.value != 0) return false;
  if (record.is_file()) {
    const bool fits =
        record.is_inline() ? record.blocks == 0 && record.tail.size() <= record.size : record.tail.empty();
    const std::uint64_t blocks = (record.size + kBlockBytes - 1) / kBlockBytes;
    return fits && record.size <= kFileBytesMax && record.blocks <= blocks &&
           (record.tail.empty() || record.tail.view().back() != 0);
  }
  if (record.blocks != 0) return false;
  if (record.is_link())
    return record.tail.size() == record.size && !record.tail.empty() && record.size <= kTargetBytesMax;
  return record.tail.empty() && (record.is_directory() || record.size == 0);
}

}  // namespace

Time to_time(Micros agreed) {
  constexpr std::int64_t kMicrosPerSecond = 1'000'000;
  std::int64_t seconds = agreed.value / kMicrosPerSecond;
  std::int64_t rest = agreed.value % kMicrosPerSecond;
  if (rest < 0) {
    rest += kMicrosPerSecond;
    --seconds;
  }
  return {seconds, static_cast<std::uint32_t>(rest * 1'000)};
}

ByteView without_trailing_zeros(ByteView bytes) {
  std::size_t size = bytes.size();
  while (size >= 8) {  // eight at a time: a block of zeros is common
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data() + size - 8, 8);
    if (word != 0) break;
    size -= 8;
  }
  while (size > 0 && bytes[size - 1] == 0) --size;
  return bytes.first(size);
}

std::uint64_t hash_of(std::string_view name) {
  const Digest digest = crypto::sha256(as_bytes(name));
  std::uint64_t hash = 0;
  for (unsigned i = 0; i < 8; ++i) hash = hash << 8 | digest.bytes[i];
  return std::max<std::uint64_t>(hash >> 1, 4);
}

std::uint32_t Leaf::bytes() const {
  std::uint32_t sum = 0;
  for (const Entry& entry : entries) sum += entry_bytes(entry.name.size());
  return sum;
}

Bytes encode(const Superblock& superblock) { return Writer(9).number(kVersion).number(superblock.next.value).take(); }

std::optional<Superblock> decode_superblock(ByteView bytes) {
  Reader in(bytes);
  in.require(in.number<std::uint8_t>() == kVersion);
  const Superblock out{Inode{in.number<std::uint64_t>()}};
  in.require(out.next.value > kRootInode.value && out.next.value <= kInodeMax + 1);
  if (!in.good() || !in.at_end()) return std::nullopt;
  return out;
}

Bytes encode(const Record& record) {
  Writer out(96 + record.tail.size());
  out.number(kVersion).number(record.mode).number(record.uid).number(record.gid).number(record.links);
  out.number(record.size).number(record.device).number(record.blocks).number(record.parent.value);
  out.number(record.attributes).time(record.accessed).time(record.modified).time(record.changed);
  return out.bytes(record.tail.view()).take();
}

std::optional<Record> decode_record(const SharedBytes& bytes) {
  Reader in(bytes.view());
  in.require(in.number<std::uint8_t>() == kVersion);
  Record out;
  out.mode = in.number<std::uint32_t>();
  out.uid = in.number<std::uint32_t>();
  out.gid = in.number<std::uint32_t>();
  out.links = in.number<std::uint32_t>();
  out.size = in.number<std::uint64_t>();
  out.device = in.number<std::uint64_t>();
  out.blocks = in.number<std::uint32_t>();
  out.parent.value = in.number<std::uint64_t>();
  out.attributes = in.number<std::uint32_t>();
  out.accessed = in.time();
  out.modified = in.time();
  out.changed = in.time();
  if (!in.good()) return std::nullopt;
  out.tail = bytes.slice(in.at(), bytes.size() - in.at());
  if (!is_possible(out)) return std::nullopt;
  return out;
}

Bytes encode(const Leaf& leaf) {
  Writer out(kLeafHeaderBytes + leaf.bytes());
  out.number(kVersion).number(static_cast<std::uint8_t>(leaf.depth));
  for (const Entry& entry : leaf.entries) {
    out.number(entry.hash).number(entry.inode.value).number(entry.type);
    out.number(static_cast<std::uint8_t>(entry.name.size())).bytes(as_bytes(entry.name));
  }
  return out.take();
}

std::optional<Leaf> decode_leaf(ByteView bytes, std::uint32_t last) {
  Reader in(bytes);
  in.require(in.number<std::uint8_t>() == kVersion);
  Leaf out;
  out.depth = in.number<std::uint8_t>();
  in.require(out.depth <= kLeafDepthMax);
  if (!in.good()) return std::nullopt;
  const std::uint32_t below = (1u << (kLeafDepthMax - out.depth)) - 1;
  in.require((last & below) == below);
  out.first = last & ~below;
  out.entries.reserve(bytes.size() / 32);
  std::uint64_t before = 0;
  while (in.good() && !in.at_end()) {
    Entry entry;
    entry.hash = in.number<std::uint64_t>();
    entry.inode.value = in.number<std::uint64_t>();
    entry.type = in.number<std::uint8_t>();
    entry.name = as_text(in.bytes(in.number<std::uint8_t>()));
    in.require(entry.hash > before && entry.hash >> 63 == 0 && is_inode(entry.inode) && is_type(entry.type));
    in.require(is_name(entry.name));
    in.require(leaf_number(entry.hash) >= out.first && leaf_number(entry.hash) <= last);
    before = entry.hash;
    out.entries.push_back(entry);
  }
  if (!in.good()) return std::nullopt;
  return out;
}

Bytes encode(const std::vector<Attribute>& attributes) {
  Writer out(256);
  out.number(kVersion);
  for (const Attribute& attribute : attributes) {
    out.number(static_cast<std::uint8_t>(attribute.name.size())).bytes(as_bytes(attribute.name));
    out.number(static_cast<std::uint32_t>(attribute.value.size())).bytes(attribute.value);
  }
  return out.take();
}

std::optional<std::vector<Attribute>> decode_attributes(ByteView bytes) {
  Reader in(bytes);
  in.require(in.number<std::uint8_t>() == kVersion);
  std::vector<Attribute> out;
  while (in.good() && !in.at_end()) {
    Attribute attribute;
    attribute.name = as_text(in.bytes(in.number<std::uint8_t>()));
    attribute.value = in.bytes(in.number<std::uint32_t>());
    in.require(!attribute.name.empty() && (out.empty() || out.back().name < attribute.name));
    out.push_back(attribute);
  }
  if (!in.good() || out.empty()) return std::nullopt;
  return out;
}

}  // namespace zz::execution::statefs
