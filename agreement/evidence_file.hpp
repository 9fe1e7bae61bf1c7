#pragma once

// EvidenceFiles: replies and states that differed, one JSON file each, in a directory of a node; `zz explain` reads
// them. At most kFilesMax, the oldest go first; of operations the beginning, of replies and of objects of the state an
// excerpt around the first byte that differs. One thread. Written without a sync: evidence is for people, nothing
// depends on it.

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include "agreement/evidence_book.hpp"
#include "agreement/state_evidence.hpp"
#include "base/result.hpp"

namespace zz::agreement {

class EvidenceFiles {
 public:
  static constexpr std::size_t kFilesMax = 256;
  static constexpr std::size_t kOpBytesMax = 1'024;
  static constexpr std::size_t kBytesBefore = 64;  // of an excerpt, before the first difference
  static constexpr std::size_t kExcerptBytes = 512;

  // The directory is made when there is something to write.
  explicit EvidenceFiles(std::string directory) : directory_(std::move(directory)) {}

  // The path of the file. Of one batch the last word counts.
  Result<std::string> write(std::string_view service, const Evidence& evidence);
  // `adapter`: the service's, which says what its objects are.
  Result<std::string> write(std::string_view service, std::string_view adapter, const StateDifference& difference);

 private:
  Result<std::string> write(const std::string& name, const std::string& text);
  void make_room() const;

  std::string directory_;
};

// Where a node with this data directory keeps them.
inline std::string evidence_path(const std::string& data) { return data + "/evidence"; }

}  // namespace zz::agreement
