#include "agreement/wal_tail.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

namespace zz::agreement {

namespace wal {
namespace {

constexpr std::size_t kBlockBytes = 32u << 10;
constexpr std::size_t kHeaderBytes = 7;
constexpr std::size_t kSectorBytes = 512;
constexpr std::size_t kHoleTailBytes = 4;  // a lost last sector may be this short; less may be zero by chance
enum Type : std::uint8_t { kFull = 1, kFirst = 2, kMiddle = 3, kLast = 4 };

// CRC-32C (Castagnoli) of type and payload, masked as RocksDB does.
std::uint32_t masked_crc(ByteView bytes) {
  static const std::array<std::uint32_t, 256> kTable = [] {
    std::array<std::uint32_t, 256> table{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      std::uint32_t value = i;
      for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ (value & 1 ? 0x82f63b78u : 0);
      table[i] = value;
    }
    return table;
  }();
  std::uint32_t crc = 0xffffffffu;
  for (const std::uint8_t byte : bytes) crc = crc >> 8 ^ kTable[(crc ^ byte) & 0xff];
  crc = ~crc;
  return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

struct Fragment {
  std::uint32_t crc = 0;
  std::size_t end = 0;  // as its length claims
  std::uint8_t type = 0;
  bool in_block = false;  // as every writer leaves it
  bool whole = false;
};

// Requires a header's worth of bytes at `at`.
Fragment fragment_at(ByteView file, std::size_t at) {
  Fragment out;
  for (std::size_t i = 0; i < 4; ++i) out.crc |= std::uint32_t{file[at + i]} << (8 * i);
  const std::size_t length = file[at + 4] | std::size_t{file[at + 5]} << 8;
  out.type = file[at + 6];
  out.end = at + kHeaderBytes + length;
  out.in_block = at % kBlockBytes + kHeaderBytes + length <= kBlockBytes;
  out.whole = out.type >= kFull && out.type <= kLast && out.in_block && out.end <= file.size() &&
              masked_crc(file.subspan(at + kHeaderBytes - 1, length + 1)) == out.crc;
  return out;
}

// Whether a record begins anywhere after `at`, on a damaged path: lengths cannot be believed.
bool record_after(ByteView file, std::size_t at) {
  for (std::size_t i = at + 1; i + kHeaderBytes <= file.size(); ++i) {
    if (file[i + 6] != kFull && file[i + 6] != kFirst) continue;
    if (kBlockBytes - i % kBlockBytes >= kHeaderBytes && fragment_at(file, i).whole) return true;
  }
  return false;
}

// Whether sectors of the record at `at`, up to the end of the file, were never written.
bool has_hole(ByteView file, std::size_t at) {
  for (std::size_t begin = at; begin < file.size();) {
    const std::size_t end = std::min(file.size(), (begin / kSectorBytes + 1) * kSectorBytes);
    const std::size_t least = begin == at ? kHeaderBytes : kHoleTailBytes;
    const auto part = file.subspan(begin, end - begin);
    if (part.size() >= least && std::all_of(part.begin(), part.end(), [](std::uint8_t b) { return b == 0; }))
      return true;
    begin = end;
  }
  return false;
}

}  // namespace

Scan scan(ByteView file) {
  Scan out;
  while (!file.empty() && file.back() == 0) file = file.first(file.size() - 1);
  bool inside = false;  // of a record whose first fragment was read
  for (std::size_t at = 0; at < file.size();) {
    const std::size_t left = kBlockBytes - at % kBlockBytes;
    if (left < kHeaderBytes) {  // too short for a header: the writer filled it up, before the next record
      out.torn = at + left > file.size();
      at += left;
      continue;
    }
    Fragment fragment;
    if (file.size() - at >= kHeaderBytes) {
      fragment = fragment_at(file, at);
    } else {
      fragment.end = file.size() + 1;
      fragment.in_block = true;
    }
    if (!fragment.whole) {
      const std::size_t present = file.size() - std::min(file.size(), at + kHeaderBytes - 1);
      const bool cut = fragment.in_block && fragment.end > file.size() &&
                       (present == 0 || masked_crc(file.last(present)) != fragment.crc);
      if (record_after(file, at)) {
        out.damage = fmt::format("damaged at byte {}, with whole records after it", at);
      } else if (!cut && !has_hole(file, at)) {
        out.damage = fmt::format("damaged at byte {}", at);
      }
      out.torn = true;
      return out;
    }
    const bool starts = fragment.type == kFull || fragment.type == kFirst;
    if (starts == inside) {
      out.damage = fmt::format("fragments out of order at byte {}", at);
      return out;
    }
    inside = fragment.type == kFirst || fragment.type == kMiddle;
    at = fragment.end;
    if (!inside) {
      out.whole = at;
      ++out.records;
    }
  }
  out.torn = out.torn || inside;
  return out;
}

namespace {

bool cut(const std::string& path, std::size_t size) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  const bool done = fd >= 0 && ::ftruncate(fd, static_cast<off_t>(size)) == 0 && ::fsync(fd) == 0;
  if (fd >= 0) ::close(fd);
  return done;
}

}  // namespace
}  // namespace wal

WalVerdict trim_wal(const std::string& directory) {
  namespace fs = std::filesystem;
  std::vector<fs::path> files;  // zero-padded numbers: in the order of writing
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    if (entry.path().extension() == ".log") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  std::string torn;
  std::vector<std::size_t> size;
  std::vector<std::size_t> whole;
  for (const fs::path& path : files) {
    std::ifstream file(path, std::ios::binary);
    const std::string bytes(std::istreambuf_iterator<char>(file), {});
    if (!file.is_open() || file.bad())
      return {fmt::format("{}: cannot read: {}", path.string(), std::strerror(errno)), true};
    const wal::Scan scan = wal::scan(as_bytes(bytes));
    if (!scan.damage.empty()) return {fmt::format("{}: {}", path.filename().string(), scan.damage), false};
    if (!torn.empty() && scan.records > 0) return {fmt::format("{}: torn, but {} follows", torn, path.string()), false};
    if (scan.torn && !torn.empty()) return {fmt::format("{} and {}: both torn", torn, path.string()), false};
    if (scan.torn) torn = path.string();
    whole.push_back(scan.whole);
    size.push_back(bytes.size());
  }
  for (std::size_t i = 0; i < files.size(); ++i) {
    if (size[i] == whole[i] || wal::cut(files[i], whole[i])) continue;
    return {fmt::format("{}: cannot cut off what follows its last record", files[i].string()), true};
  }
  return {};
}

bool holds_data(const std::string& directory) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    const auto extension = entry.path().extension();
    std::error_code ignored;
    if ((extension == ".log" || extension == ".sst") && std::filesystem::file_size(entry.path(), ignored) > 0)
      return true;
  }
  return false;
}

}  // namespace zz::agreement
