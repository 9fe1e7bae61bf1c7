#include "tests/sim/witness_roots.hpp"

#include <algorithm>

namespace zz::sim {

using namespace agreement;

void RootWitness::sent(const Parcel& parcel) {
  if (parcel.message->service != ghost_.service || parcel.to.role != crypto::Role::kNode) return;
  const Body& body = parcel.message->body;
  if (const auto* word = std::get_if<ExecCheckpoint>(&body)) {
    if (parcel.from.role == crypto::Role::kExecutor && word->slot == parcel.from.slot) said(parcel, *word);
  } else if (const auto* message = std::get_if<Checkpoint>(&body)) {
    if (parcel.from.role == crypto::Role::kNode && message->signer == parcel.from.node()) signs(parcel, *message);
  }
}

void RootWitness::said(const Parcel& parcel, const ExecCheckpoint& word) {
  if (ghost_.is_correct(word.slot)) {
    const auto [known, is_new] = roots_.emplace(word.n, word.root);
    if (known->second != word.root) {
      return ghost_.fail("I19 determinism: two correct slots have different states",
                         at(word.slot, word.incarnation) + ", " + at(word.n));
    }
  }
  told_[{parcel.to.node(), word.n}].slots[word.root] |= bit_of(word.slot);
}

void RootWitness::signs(const Parcel& parcel, const Checkpoint& message) {
  const CheckpointState& state = message.state;
  if (ghost_.is_correct(message.signer) && !backed(told_[{message.signer, state.n}], state)) {
    return ghost_.fail("I6 quorum: CHECKPOINT of a root that neither g+1 slots nor f+1 other nodes gave",
                       at(message.signer, state.n));
  }
  if (parcel.to.node() == message.signer) return;  // it could not leave
  auto& nodes = told_[{parcel.to.node(), state.n}].nodes;
  auto known = std::find_if(nodes.begin(), nodes.end(), [&](const auto& one) { return one.first == state; });
  if (known == nodes.end()) known = nodes.insert(known, {state, 0});
  known->second |= bit_of(message.signer);
}

bool RootWitness::backed(const Told& told, const CheckpointState& state) const {
  const auto slots = told.slots.find(state.root);
  if (slots != told.slots.end() && size_of(slots->second) > ghost_.g) return true;
  return std::any_of(told.nodes.begin(), told.nodes.end(),
                     [&](const auto& one) { return one.first == state && size_of(one.second) > ghost_.f; });
}

}  // namespace zz::sim
