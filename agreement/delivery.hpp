#pragma once

// Delivery: a committed batch whose turn has come; what the ordering core gives to everything else. Plain value.

#include <vector>

#include "agreement/messages.hpp"

namespace zz::agreement {

struct Delivery {
  HeaderPtr header;
  Digest digest;                     // D_n
  Digest history;                    // H_n
  Micros time;                       // agreed time of n
  std::vector<RequestPtr> requests;  // bodies, in the order of header->references
};

}  // namespace zz::agreement
