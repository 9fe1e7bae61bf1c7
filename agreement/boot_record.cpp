#include "agreement/boot_record.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/bytes.hpp"
#include "crypto/digest.hpp"

namespace zz::agreement {

std::string boot_path(const std::string& directory) { return directory + "/boot"; }

std::string foreign_error(const std::string& directory, std::string_view what, const crypto::ClusterId& cluster,
                          NodeId node) {
  return fmt::format("{}: the {} in it is of node {} of cluster {}; give this node its own data directory", directory,
                     what, node.value, to_hex(cluster.bytes));
}

namespace {

std::string render(const BootRecord& record) {
  const std::string text =
      fmt::format("zz boot record 1\ncluster {}\nnode {}\nboot {}\nid {}\npromises {}\n", to_hex(record.cluster.bytes),
                  record.node.value, record.boot, to_hex(record.id), record.promises);
  return text + fmt::format("checksum {}\n", to_hex(crypto::sha256(as_bytes(text)).bytes));
}

std::optional<BootRecord> parse_boot_record(const std::string& text) {
  BootRecord record;
  std::array<char, 33> cluster{};
  std::array<char, 33> id{};
  unsigned node = 0;
  unsigned long long boot = 0;
  unsigned long long promises = 0;
  if (std::sscanf(text.c_str(), "zz boot record 1\ncluster %32s\nnode %u\nboot %llu\nid %32s\npromises %llu\n",
                  cluster.data(), &node, &boot, id.data(), &promises) != 5) {
    return std::nullopt;
  }
  if (!from_hex(cluster.data(), record.cluster.bytes) || !from_hex(id.data(), record.id)) return std::nullopt;
  record.node = NodeId{static_cast<std::uint16_t>(node)};
  record.boot = boot;
  record.promises = promises;
  return render(record) == text ? std::optional(record) : std::nullopt;  // so nothing else, and the checksum fits
}

}  // namespace

Result<void> sync_directory(const std::string& directory) {
  const int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool synced = fd >= 0 && ::fsync(fd) == 0;
  const int error = errno;
  if (fd >= 0) ::close(fd);
  if (synced) return {};
  return Error{fmt::format("{}: cannot sync the directory: {}; check the disk", directory, std::strerror(error))};
}

Result<void> write_boot_record(const std::string& directory, const BootRecord& record) {
  const std::string fresh = boot_path(directory) + ".new";
  const std::string text = render(record);
  const int fd = ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  bool written = fd >= 0 && ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  written = written && ::fsync(fd) == 0;
  int error = errno;
  if (fd >= 0) ::close(fd);
  if (written && ::rename(fresh.c_str(), boot_path(directory).c_str()) != 0) {
    written = false;
    error = errno;
  }
  if (written) return sync_directory(directory);
  return Error{fmt::format("{}: cannot write: {}; check the disk and its space, then start the node again",
                           boot_path(directory), std::strerror(error))};
}

Result<BootFound> read_boot_record(const std::string& directory, const crypto::ClusterId& cluster, NodeId node) {
  BootFound found;
  std::error_code error;
  found.there = std::filesystem::exists(boot_path(directory), error);
  if (!found.there) return found;
  std::ifstream file(boot_path(directory), std::ios::binary);
  const std::string text(std::istreambuf_iterator<char>(file), {});
  if (file.bad() || !file.is_open()) return Error{fmt::format("{}: cannot read", boot_path(directory))};
  found.record = parse_boot_record(text);
  if (found.record && (found.record->cluster != cluster || found.record->node != node)) {
    return Error{foreign_error(directory, "boot record", found.record->cluster, found.record->node)};
  }
  return found;
}

}  // namespace zz::agreement
