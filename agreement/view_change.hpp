#pragma once

// What a new view continues with: a pure function of signed VIEW-CHANGE messages (docs/protocol.md §7; Castro and
// Liskov, TOCS 2002 §4.4 and figure 4). Nothing here keeps state or knows time; any thread.

#include <optional>
#include <vector>

#include "agreement/messages.hpp"

namespace zz::agreement {

struct NewViewChoice {
  CertificatePtr stable;  // the highest in the set; null: the beginning
  std::vector<Digest>
      chosen;  // of stable_n + 1, + 2, ...; all zero: null. Ends with the highest number chosen not null
};

// Requires valid messages for one view of distinct signers. For each n above the highest stable checkpoint h:
//  - D, if some message has (n, D, v) in P, and
//    (A1) 2f+1 messages have a stable checkpoint below n and no entry for n in P that has a higher view, or view v
//         and another digest; and
//    (A2) f+1 messages have (n, D, v') in Q with v' >= v.
//    Of several such D (none of them can have been committed), the one of the newest view, then the smallest;
//  - null, if there is none and 2f+1 messages have a stable checkpoint below n and no entry for n in P.
// Nothing with fewer than 2f+1 messages, nor while some n up to the highest one in any P is undecided: more messages
// are needed. Those of all correct nodes suffice, whatever the others say. Numbers beyond h + window count as not said.
//
// Takes time in proportion to window x messages^2 x log(claims).
std::optional<NewViewChoice> choose(std::uint32_t f, std::uint32_t window, const std::vector<ViewChangePtr>& messages);

}  // namespace zz::agreement
