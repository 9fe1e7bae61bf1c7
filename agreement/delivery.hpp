#pragma once

// Delivery: a committed batch whose turn has come; what the ordering core gives to everything else. Plain value.

#include <optional>
#include <vector>

#include "agreement/messages.hpp"

namespace zz::agreement {

struct Delivery {
  HeaderPtr header;
  Digest digest;                       // D_n
  Digest history;                      // H_n
  Micros time;                         // agreed time of n
  std::vector<RequestPtr> requests;    // bodies, in the order of header->references
  std::optional<View> committed_in{};  // by 2f+1 COMMITs here; not known of what was fetched or replayed
};

}  // namespace zz::agreement
