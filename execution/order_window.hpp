#pragma once

// OrderWindow: the batches an executor has heard of and not yet taken for execution: what each node said the digest
// of n is, and the bodies, held until their turn. Pure, one thread.
//
// Invariants:
//  1. The digest of n is decided by f+1 equal words of distinct nodes, once, and never changes.
//  2. take() gives batches in order of n without holes, each with the decided digest.
//  3. Held bodies cost at most held_bytes_max, of which a quarter may be of undecided batches; the batch whose turn it
//     is has a place on top of that.
//  4. Only n in [next(), next() + kOrderWindow) is remembered.

#include <cstdint>
#include <optional>
#include <vector>

#include "agreement/messages.hpp"
#include "base/ids.hpp"
#include "base/refusal.hpp"

namespace zz::execution {

// In batches. A node runs at most agreement's OrderStream::kOrdersAhead ahead of a vote, well inside.
inline constexpr std::uint64_t kOrderWindow = 4'096;

class OrderWindow {
 public:
  struct Options {
    std::uint32_t f = 1;
    std::uint64_t held_bytes_max = 64u << 20;
  };
  explicit OrderWindow(const Options& options);

  // The first batch not taken yet.
  [[nodiscard]] Seq next() const { return next_; }

  struct Noted {
    Refusal refusal = Refusal::kNone;
    std::optional<NodeId> liar;  // had given us another batch for this n
  };
  // Node `from` (below 32) says at this time that batch n has digest `digest`.
  Noted note(NodeId from, Seq n, const Digest& digest, Micros now);

  // Keeps a whole batch of node `from`. kDuplicate: there already or past; kOutOfWindow, kQueueFull: no place, ask
  // again later; kConflict: not the decided batch, or bodies that are not the referenced ones; kMalformed.
  Refusal hold(NodeId from, agreement::Batch batch);
  // f+1 nodes said that n is this.
  [[nodiscard]] bool decided_as(Seq n, const Digest& digest) const {
    return n >= next_ && !beyond(n) && slot(n).decided && slot(n).digest == digest;
  }
  [[nodiscard]] bool decided(Seq n) const { return n >= next_ && !beyond(n) && slot(n).decided; }
  // When it was decided. Requires n in the window, and decided.
  [[nodiscard]] Micros decided_at(Seq n) const { return slot(n).decided_at; }
  // Forgets what this node gave and is not decided yet.
  void forget_undecided_of(NodeId from);

  // The next batch is decided / is decided and here.
  [[nodiscard]] bool next_decided() const { return slot(next_).decided; }
  [[nodiscard]] bool runnable() const { return slot(next_).decided && slot(next_).held; }
  // So is the one this far behind it: there is a backlog. Requires ahead < kOrderWindow.
  [[nodiscard]] bool runnable_ahead(std::uint64_t ahead) const {
    const Slot& s = slot(Seq{next_.value + ahead});
    return s.decided && s.held;
  }
  // Some node spoke of the next batch or a later one.
  [[nodiscard]] bool heard_ahead() const { return heard_.value >= next_.value; }
  // True if this node has said what n is. Requires n in the window.
  [[nodiscard]] bool heard(NodeId from, Seq n) const;
  // The batch this far behind the next one, if it is decided and here. Requires ahead < kOrderWindow.
  [[nodiscard]] const agreement::Batch* peek(std::uint64_t ahead) const {
    const Slot& s = slot(Seq{next_.value + ahead});
    return s.decided && s.held ? &s.batch : nullptr;
  }
  // Requires runnable().
  agreement::Batch take();
  // `next` is the first batch not taken. What was said of it and of later ones stays where it has a place.
  void go_to(Seq next);

  [[nodiscard]] std::uint64_t held_bytes() const { return held_bytes_; }
  [[nodiscard]] bool has_room() const { return held_bytes_ <= options_.held_bytes_max / 2; }

 private:
  struct Candidate {
    Digest digest;
    std::uint32_t nodes = 0;  // bit per node that said so
  };
  struct Slot {
    std::uint32_t nodes = 0;  // bit per node that said something
    bool decided = false;
    bool held = false;
    NodeId holder;
    Digest digest;                      // once decided
    Micros decided_at;                  // once decided
    std::vector<Candidate> candidates;  // until decided; at most one per node
    agreement::Batch batch;             // if held
    std::uint64_t bytes = 0;            // if held
  };
  [[nodiscard]] Slot& slot(Seq n) { return slots_[n.value % kOrderWindow]; }
  [[nodiscard]] const Slot& slot(Seq n) const { return slots_[n.value % kOrderWindow]; }
  [[nodiscard]] bool beyond(Seq n) const { return n.value - next_.value >= kOrderWindow; }
  void release(Slot& s);
  void clear(Slot& s);
  void decide(Slot& s, const Digest& digest);

  Options options_;
  Seq next_{1};
  Seq heard_;
  std::vector<Slot> slots_;  // by n modulo kOrderWindow
  std::uint64_t held_bytes_ = 0;
  std::uint64_t undecided_bytes_ = 0;  // part of held_bytes_
};

}  // namespace zz::execution
