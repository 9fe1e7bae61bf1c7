#pragma once

// Where a slot's own state stands among the objects of its store (docs/protocol.md §8, §10; docs/decisions/0021). Ids
// below kOwnFirst are the service's. All numbers are little-endian. Plain values, any thread.
//
// At a checkpoint, these objects are a function of the order alone. Between checkpoints they lag behind what the slot
// holds in memory, by the same rule on every slot, so that even the number of objects and bytes in the store is.
//
//   head         one record: HeadRecord
//   slot table   agreement::SlotTable::encode()
//   index pages  kSessionsPerPage entries of kSessionBytes: the session at each place. Places are dense: a session that
//                is evicted leaves its place to the one that is opened.
//                client 4, session 8, highest number 8, stamp 8: of its last record(); 0: nobody, and the rest is zero
//   ring pages   kRepliesPerPage entries of kReplyBytes: part of the ring of a place. A page without entries is absent.
//                number 8 (0: nothing, and the rest is zero), digest 32, position of the body 8, its length 4 (kNoBody:
//                it was never kept)
//   graves       kGravesPerChunk of client 4, session 8, in the order of eviction, numbered from 0
//   bodies       one stream of bytes in the order of record(), cut into chunks of kObjectBytesMax
// Graves and bodies have full chunks under their number, and what is beyond them in an object of its own, which is as
// it was at the last checkpoint. Chunks are dropped from the front.

#include <cstdint>
#include <cstring>

#include "base/bytes.hpp"
#include "base/ids.hpp"
#include "execution/state/parts.hpp"

namespace zz::execution {

inline constexpr std::uint64_t kOwnFirst = std::uint64_t{1} << 63;

namespace layout {

constexpr state::ObjectId id_in(std::uint64_t area, std::uint64_t number) {
  return state::ObjectId{kOwnFirst | area << 56 | number};
}
inline constexpr state::ObjectId kHead = id_in(0, 0);
inline constexpr state::ObjectId kSlotTable = id_in(0, 1);
inline constexpr state::ObjectId kBodyTail = id_in(0, 2);
inline constexpr state::ObjectId kGraveTail = id_in(0, 3);
constexpr state::ObjectId index_page(std::uint64_t page) { return id_in(1, page); }
constexpr state::ObjectId ring_page(std::uint64_t page) { return id_in(2, page); }
constexpr state::ObjectId grave_chunk(std::uint64_t chunk) { return id_in(3, chunk); }
constexpr state::ObjectId body_chunk(std::uint64_t chunk) { return id_in(4, chunk); }
// Everything at or above it is a chunk of bodies.
inline constexpr state::ObjectId kFirstBody = body_chunk(0);
// Positions in the stream of bodies: 2^56 chunks are never reached, and a head that says so is damaged.
inline constexpr std::uint64_t kPositionMax = std::uint64_t{1} << 62;

inline constexpr std::size_t kSessionBytes = 4 + 8 + 8 + 8;
inline constexpr std::size_t kSessionsPerPage = 256;
inline constexpr std::size_t kReplyBytes = 8 + 32 + 8 + 4;
inline constexpr std::size_t kRepliesPerPage = 32;
inline constexpr std::size_t kGraveBytes = 4 + 8;
inline constexpr std::size_t kGravesPerChunk = 4'096;
inline constexpr std::uint32_t kNoBody = 0xffff'ffff;
static_assert(kSessionBytes * kSessionsPerPage <= state::kObjectBytesMax);
static_assert(kReplyBytes * kRepliesPerPage <= state::kObjectBytesMax);
static_assert(kGraveBytes * kGravesPerChunk <= state::kObjectBytesMax);

class Writer {
 public:
  explicit Writer(std::size_t bytes) { out_.reserve(bytes); }
  void u32(std::uint32_t value) { number(value, 4); }
  void u64(std::uint64_t value) { number(value, 8); }
  void digest(const Digest& value) { out_.insert(out_.end(), value.bytes.begin(), value.bytes.end()); }
  [[nodiscard]] Bytes& bytes() { return out_; }

 private:
  void number(std::uint64_t value, std::size_t bytes) {
    for (std::size_t i = 0; i < bytes; ++i) out_.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
  }
  Bytes out_;
};

// Writes over what is there; the place must be long enough.
class InPlace {
 public:
  explicit InPlace(std::uint8_t* at) : at_(at) {}
  void u32(std::uint32_t value) { number(value, 4); }
  void u64(std::uint64_t value) { number(value, 8); }
  void digest(const Digest& value) {
    std::memcpy(at_, value.bytes.data(), value.bytes.size());
    at_ += value.bytes.size();
  }

 private:
  void number(std::uint64_t value, std::size_t bytes) {
    for (std::size_t i = 0; i < bytes; ++i) *at_++ = static_cast<std::uint8_t>(value >> (8 * i));
  }
  std::uint8_t* at_;
};

// What is not there reads as zero; ok() says whether everything was.
class Reader {
 public:
  explicit Reader(ByteView bytes) : left_(bytes) {}
  std::uint32_t u32() { return static_cast<std::uint32_t>(number(4)); }
  std::uint64_t u64() { return number(8); }
  Digest digest() {
    Digest out;
    if (!has(out.bytes.size())) return out;
    std::memcpy(out.bytes.data(), left_.data(), out.bytes.size());
    left_ = left_.subspan(out.bytes.size());
    return out;
  }
  [[nodiscard]] bool ok() const { return ok_; }
  // Everything was there, and nothing more.
  [[nodiscard]] bool done() const { return ok_ && left_.empty(); }

 private:
  bool has(std::size_t bytes) {
    ok_ = ok_ && left_.size() >= bytes;
    return ok_;
  }
  std::uint64_t number(std::size_t bytes) {
    if (!has(bytes)) return 0;
    std::uint64_t value = 0;
    for (std::size_t i = bytes; i-- > 0;) value = value << 8 | left_[i];
    left_ = left_.subspan(bytes);
    return value;
  }
  ByteView left_;
  bool ok_ = true;
};

}  // namespace layout

}  // namespace zz::execution
