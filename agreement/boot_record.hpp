#pragma once

// The boot record, DATA/boot: a few lines of text beside a node's durable log that say how often the node has started
// and how many groups of promises its log held at least, so that a log that is gone or older than that is noticed
// (agreement/durable_log.hpp). Replaced as a whole: a crash leaves the old one or the new one.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "crypto/sign.hpp"

namespace zz::agreement {

struct BootRecord {
  crypto::ClusterId cluster;
  NodeId node;
  std::uint64_t boot = 0;             // starts so far
  std::array<std::uint8_t, 16> id{};  // of the last one
  std::uint64_t promises = 0;         // groups with a promise that are synced in the log

  bool operator==(const BootRecord&) const = default;
};

struct BootFound {
  bool there = false;
  std::optional<BootRecord> record;  // nothing when there is none or it is damaged
};

std::string boot_path(const std::string& directory);

// What to tell a person whose node found another one's log or boot record (`what`).
std::string foreign_error(const std::string& directory, std::string_view what, const crypto::ClusterId& cluster,
                          NodeId node);

// Makes new and renamed entries of the directory durable.
Result<void> sync_directory(const std::string& directory);

Result<void> write_boot_record(const std::string& directory, const BootRecord& record);

// Error: it cannot be read, or it is another node's.
Result<BootFound> read_boot_record(const std::string& directory, const crypto::ClusterId& cluster, NodeId node);

}  // namespace zz::agreement
