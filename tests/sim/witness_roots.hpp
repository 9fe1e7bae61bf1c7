#pragma once

// The part of the witness that asks whose word the roots in CHECKPOINTs are (docs/protocol.md §6): what correct slots
// say of the state after n is one root (I19), and a correct node signs a root only after g+1 slots, or f+1 other nodes
// that signed the same state, told it so (I6). One thread. Held: a few entries per checkpoint and per lie about one.

#include <map>
#include <utility>
#include <vector>

#include "tests/sim/hooks.hpp"
#include "tests/sim/witness_ghost.hpp"

namespace zz::sim {

class RootWitness {
 public:
  // `ghost` must outlive it.
  explicit RootWitness(Ghost& ghost) : ghost_(ghost) {}

  void sent(const Parcel& parcel);  // by anybody

 private:
  struct Told {  // to one node, of one n
    std::map<Digest, Mask> slots;
    std::vector<std::pair<agreement::CheckpointState, Mask>> nodes;
  };

  void said(const Parcel& parcel, const agreement::ExecCheckpoint& word);
  void signs(const Parcel& parcel, const agreement::Checkpoint& message);
  [[nodiscard]] bool backed(const Told& told, const agreement::CheckpointState& state) const;

  Ghost& ghost_;
  std::map<Seq, Digest> roots_;  // of correct slots
  std::map<std::pair<NodeId, Seq>, Told> told_;
};

}  // namespace zz::sim
