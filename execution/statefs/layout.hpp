#pragma once

// How files become objects: ids, records and their one encoding (docs/decisions/0020). Plain values, any thread.
//
// An object's id is  0 | inode (39 bits) | part (24 bits); ids with the top bit set are not the file system's.
//
//   inode 0, part 0   the superblock
//   part 0            the inode's record, with a small file's bytes or a symbolic link's target in it
//   part 1            its extended attributes, if it has any
//   part 16 + n       a file's block n, unless the block is all zero; kept without its trailing zeros
//   part 2^23 + n     a directory's leaf whose last hash begins with the 23 bits n
//
// Invariants:
//  1. A record has one encoding; what decodes encodes to the same bytes.
//  2. A file's objects depend on its bytes, its size and its attributes alone: not on how they were written.
//  3. A directory's objects depend on its entries alone. Its names stand in the order of their hashes; a leaf is
//     halved when it is above kLeafBytesMax and joined with its other half when both fit.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.hpp"
#include "base/ids.hpp"
#include "execution/state/object_store.hpp"

namespace zz::execution::statefs {

using state::ObjectId;
using Inode = Strong<struct InodeTag, std::uint64_t>;  // from 1; never used twice

constexpr Inode kRootInode{1};
constexpr unsigned kPartBits = 24;
constexpr std::uint64_t kInodeMax = (1ull << 39) - 1;
constexpr std::uint32_t kBlockBytes = 16'384;
constexpr std::uint32_t kFirstBlock = 16;
constexpr std::uint64_t kFileBytesMax = std::uint64_t{(1u << kPartBits) - kFirstBlock} * kBlockBytes;  // 256 GiB
constexpr std::uint32_t kInlineBytesMax = 1'024;  // a file up to this size has no blocks
constexpr std::uint32_t kFirstLeaf = 1u << 23;
constexpr unsigned kLeafDepthMax = 23;          // bits of the hash that place a leaf
constexpr std::uint32_t kLeafBytesMax = 8'192;  // of entries; at kLeafDepthMax up to what an object can hold
constexpr std::size_t kNameBytesMax = 255;
constexpr std::size_t kTargetBytesMax = 4'095;
constexpr std::uint32_t kLinksMax = 1u << 31;

constexpr ObjectId kSuperblock{0};
constexpr ObjectId part_of(Inode inode, std::uint32_t part) { return {inode.value << kPartBits | part}; }
constexpr ObjectId record_of(Inode inode) { return part_of(inode, 0); }
constexpr ObjectId attributes_of(Inode inode) { return part_of(inode, 1); }
constexpr ObjectId block_of(Inode inode, std::uint64_t block) {
  return part_of(inode, static_cast<std::uint32_t>(kFirstBlock + block));
}
constexpr Inode inode_of(ObjectId id) { return {id.value >> kPartBits}; }

// Of st_mode, as Linux has them.
constexpr std::uint32_t kTypeMask = 0170000;
constexpr std::uint32_t kTypeCharacterDevice = 0020000;
constexpr std::uint32_t kTypeDirectory = 0040000;
constexpr std::uint32_t kTypeBlockDevice = 0060000;
constexpr std::uint32_t kTypeFile = 0100000;
constexpr std::uint32_t kTypeLink = 0120000;
constexpr std::uint32_t kSetGroup = 02000;

// As the service sees it. Agreed times have whole microseconds; a time that the service names may have nanoseconds.
struct Time {
  std::int64_t seconds = 0;
  std::uint32_t nanoseconds = 0;  // < 1e9
  auto operator<=>(const Time&) const = default;
};
Time to_time(Micros agreed);

struct Superblock {
  Inode next = kRootInode;  // the next inode to be given out
};

struct Record {
  std::uint32_t mode = 0;  // type and permissions, as in st_mode
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint32_t links = 0;       // of a directory: 2 and one per subdirectory
  std::uint64_t size = 0;        // of a directory: the bytes of its entries, zero when it is empty
  std::uint64_t device = 0;      // of a device
  std::uint32_t blocks = 0;      // of a file: how many are stored
  Inode parent;                  // of a directory; the root's is itself
  std::uint32_t attributes = 0;  // how many extended attributes
  Time accessed, modified, changed;
  SharedBytes tail;  // a file of up to kInlineBytesMax: its bytes without trailing zeros; a symbolic link: its target
  bool operator==(const Record&) const = default;
  [[nodiscard]] bool is_directory() const { return (mode & kTypeMask) == kTypeDirectory; }
  [[nodiscard]] bool is_file() const { return (mode & kTypeMask) == kTypeFile; }
  [[nodiscard]] bool is_link() const { return (mode & kTypeMask) == kTypeLink; }
  [[nodiscard]] bool is_inline() const { return size <= kInlineBytesMax; }
};

struct Entry {
  std::uint64_t hash = 0;  // hash_of(name)
  Inode inode;
  std::uint8_t type = 0;  // st_mode >> 12
  std::string_view name;  // into what it was decoded from
};

// 63 bits, at least 4, so that it can be the offset of a readdir. Two names of one directory with equal hashes are
// refused: nobody has them by chance, and who looks for some (2^31 digests) harms only himself.
std::uint64_t hash_of(std::string_view name);
constexpr std::uint32_t entry_bytes(std::size_t name_bytes) { return static_cast<std::uint32_t>(18 + name_bytes); }

// The entries whose hashes begin with the first `depth` bits of the 23-bit number `first`.
struct Leaf {
  unsigned depth = 0;
  std::uint32_t first = 0;
  std::vector<Entry> entries;  // by hash, ascending
  [[nodiscard]] std::uint32_t bytes() const;
  [[nodiscard]] std::uint32_t last() const { return first | ((1u << (kLeafDepthMax - depth)) - 1); }
};
constexpr std::uint32_t leaf_number(std::uint64_t hash) { return static_cast<std::uint32_t>(hash >> (63 - 23)); }
constexpr std::uint32_t kLastLeaf = (1u << kLeafDepthMax) - 1;
constexpr ObjectId leaf_of(Inode inode, std::uint32_t last) { return part_of(inode, kFirstLeaf | last); }
constexpr std::uint32_t kLeafHeaderBytes = 2;

struct Attribute {
  std::string_view name;
  ByteView value;
};

Bytes encode(const Superblock& superblock);
Bytes encode(const Record& record);
Bytes encode(const Leaf& leaf);
Bytes encode(const std::vector<Attribute>& attributes);  // by name, ascending

// Nothing: malformed, not in its one encoding, or impossible in itself. Views point into `bytes`.
std::optional<Superblock> decode_superblock(ByteView bytes);
std::optional<Record> decode_record(const SharedBytes& bytes);
std::optional<Leaf> decode_leaf(ByteView bytes, std::uint32_t last);
std::optional<std::vector<Attribute>> decode_attributes(ByteView bytes);

// `bytes` without its trailing zeros.
ByteView without_trailing_zeros(ByteView bytes);

}  // namespace zz::execution::statefs
