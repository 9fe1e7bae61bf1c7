#include "agreement/state_evidence.hpp"

#include <algorithm>

namespace zz::agreement {

using execution::state::Child;
using execution::state::covers;
using execution::state::decode_node;
using execution::state::decode_root;
using execution::state::kLeafDepth;
using execution::state::nibble;
using execution::state::NodeImage;
using execution::state::ObjectId;
using execution::state::Place;
using execution::state::RootImage;

namespace {

// StateWant's kinds.
constexpr std::uint8_t kRoot = 0;
constexpr std::uint8_t kNode = 1;
constexpr std::uint8_t kObject = 2;

std::uint64_t bytes_max(std::uint8_t kind, const Child& what) {
  return kind == kRoot ? execution::state::kRootBytesMax : kind == kNode ? execution::state::kNodeBytesMax : what.bytes;
}

const Child* child_in(const std::vector<Child>& children, unsigned depth, unsigned which) {
  const auto found = std::find_if(children.begin(), children.end(),
                                  [&](const Child& child) { return nibble(child.place.prefix, depth) == which; });
  return found == children.end() ? nullptr : &*found;
}

}  // namespace

// ---- cases -----------------------------------------------------------------------------------------------------

void StateEvidence::open(const OversightOutput::RootDifference& difference) {
  if (difference.epoch != epoch_) in_epoch_ = 0;
  epoch_ = difference.epoch;
  if (case_ && case_->found.n == difference.n) {  // more is known
    for (const auto& told : difference.sides) {
      auto& sides = case_->found.sides;
      const auto known = std::find_if(sides.begin(), sides.end(), [&](const auto& s) { return s.root == told.root; });
      if (known == sides.end()) {
        sides.push_back({told.slots, told.root, told.agrees, false, {}});
        continue;
      }
      for (const auto& slot : told.slots) {
        const bool there = std::find(known->slots.begin(), known->slots.end(), slot) != known->slots.end();
        if (!there) known->slots.push_back(slot);
      }
    }
    case_->found.hung = case_->found.hung || difference.hung;
    case_->judged = case_->judged || difference.hung;
    return review();
  }
  if (case_ || difference.n <= last_ || difference.sides.size() < 2 || in_epoch_ >= kCasesPerEpoch) return;
  ++in_epoch_;
  last_ = difference.n;
  case_ = Case{};
  case_->since = now_;
  StateDifference& found = case_->found;
  found.n = difference.n;
  found.epoch = difference.epoch;
  found.hung = case_->judged = difference.hung;
  for (const auto& told : difference.sides) {
    found.sides.push_back({told.slots, told.root, told.agrees, false, {}});
    case_->judged = case_->judged || told.agrees;
  }
  for (std::size_t side = 0; side < 2; ++side) ask(side, kRoot, {{}, 0, 0, found.sides[side].root});
}

void StateEvidence::settled(Seq n, const Digest& root) {
  if (!case_ || case_->found.n != n) return;
  for (StateDifference::Side& side : case_->found.sides) side.agrees = side.root == root;
  case_->found.hung = false;
  case_->judged = true;
  review();
}

void StateEvidence::tick(Micros now) {
  now_ = now;
  for (std::size_t side = 0; case_ && side < 2; ++side) {
    const Walker& walker = case_->walkers[side];
    if (walker.want && now.value - walker.asked_at.value >= kAnswerPatience.value) ask_another(side);
  }
  review();
}

void StateEvidence::review() {
  if (!case_) return;
  const bool over = now_.value - case_->since.value >= kPatience.value;
  if (!over && !(case_->walked && case_->judged)) return;
  if (done_.size() < kDoneMax) done_.push_back(std::move(case_->found));
  case_.reset();
}

// ---- questions -------------------------------------------------------------------------------------------------

void StateEvidence::ask(std::size_t side, std::uint8_t kind, const Child& what) {
  case_->walkers[side].want = StateWant{kind, what.place.prefix, what.place.depth, bytes_max(kind, what), what.digest};
  put_question(side);
}

void StateEvidence::put_question(std::size_t side) {
  Walker& walker = case_->walkers[side];
  walker.ticket = kTicketBit | ++tickets_;
  walker.asked_at = now_;
  const auto& [slot, incarnation] = case_->found.sides[side].slots[walker.turn];
  asks_.push_back({slot, incarnation, FetchState{walker.ticket, slot, case_->found.n, {*walker.want}, {}}});
}

void StateEvidence::ask_another(std::size_t side) {
  Walker& walker = case_->walkers[side];
  if (++walker.turn < case_->found.sides[side].slots.size()) return put_question(side);
  walker.want.reset();
  walk();
}

Refusal StateEvidence::step(SlotId slot, Incarnation incarnation, const StateParts& message) {
  for (std::size_t side = 0; case_ && side < 2; ++side) {
    Walker& walker = case_->walkers[side];
    if (!walker.want || walker.ticket != message.ticket) continue;
    if (case_->found.sides[side].slots[walker.turn] != std::pair(slot, incarnation)) return Refusal::kNotWanted;
    if (message.parts.empty()) {  // it has not got it any more
      ask_another(side);
      return Refusal::kNone;
    }
    if (message.parts.size() != 1 || !take(side, message.parts.front())) {
      ask_another(side);
      return Refusal::kWrongDigest;
    }
    walker.want.reset();
    walk();
    return Refusal::kNone;
  }
  return Refusal::kNotWanted;
}

// False: it is not what was asked for.
bool StateEvidence::take(std::size_t side, const StatePart& part) {
  Walker& walker = case_->walkers[side];
  const StateWant& want = *walker.want;
  if (part.kind != want.kind || part.prefix != want.prefix || part.depth != want.depth) return false;
  if (part.bytes.size() > want.bytes_max) return false;
  if (want.kind == kRoot) {
    std::optional<RootImage> root = decode_root(part.bytes.view());
    if (!root || root_digest(*root) != want.digest) return false;
    walker.at = std::move(root->top);
    return true;
  }
  if (want.kind == kNode) {
    std::optional<NodeImage> node = decode_node(part.bytes.view());
    if (!node || node->place != walker.at->place || node_digest(*node) != want.digest) return false;
    walker.children = std::move(node->children);
    return true;
  }
  if (object_digest(ObjectId{want.prefix}, part.bytes.view()) != want.digest) return false;
  case_->found.sides[side].object = SharedBytes::copy(part.bytes.view());  // not with the whole frame it came in
  return true;
}

// ---- the walk --------------------------------------------------------------------------------------------------

// Goes on once both sides have answered.
void StateEvidence::walk() {
  const auto& walkers = case_->walkers;
  if (std::any_of(walkers.begin(), walkers.end(), [](const Walker& walker) { return walker.want.has_value(); })) return;
  bool left = false;  // somebody to ask, of each side
  for (std::size_t side = 0; side < 2; ++side) {
    left = walkers[side].turn < case_->found.sides[side].slots.size();
    if (!left) break;
  }
  case_->walked = !left || case_->found.first || !descend();
  if (case_->walked) review();
}

// Asks for what is next on the way to the first object that differs. False: there is none, because a slot signed for a
// tree whose sums are not those of its objects.
bool StateEvidence::descend() {
  Walker& a = case_->walkers[0];
  Walker& b = case_->walkers[1];
  while (a.at || b.at) {
    // Subtrees that have nothing in common: the one with the lower ids is what the other state lacks.
    if (a.at && b.at && !covers(a.at->place, b.at->place.prefix) && !covers(b.at->place, a.at->place.prefix)) {
      (a.at->place.prefix < b.at->place.prefix ? b.at : a.at).reset();
    }
    // Paths are compressed: one side may be further down than the other.
    const Place top = !b.at || (a.at && a.at->place.depth <= b.at->place.depth) ? a.at->place : b.at->place;
    bool asked = false;
    for (std::size_t side = 0; side < 2; ++side) {
      Walker& walker = case_->walkers[side];
      if (top.is_object()) {
        case_->found.first = ObjectId{top.prefix};
        case_->found.sides[side].absent = !walker.at;
      }
      if (!walker.at) continue;
      if (walker.at->place != top) {
        walker.children = {*walker.at};
      } else if (walker.children.empty()) {
        ask(side, top.is_object() ? kObject : kNode, *walker.at);
        asked = true;
      }
    }
    if (asked) return true;
    case_->found.path.push_back(top);
    const Child* of_a = nullptr;
    const Child* of_b = nullptr;
    bool same = true;
    for (unsigned i = 0; same && i < execution::state::kFanout; ++i) {
      of_a = child_in(a.children, top.depth, i);
      of_b = child_in(b.children, top.depth, i);
      same = of_a == nullptr || of_b == nullptr ? of_a == of_b : *of_a == *of_b;
    }
    if (same) return false;
    const auto go_to = [](Walker& walker, const Child* child) {
      walker.at = child == nullptr ? std::nullopt : std::optional(*child);
      walker.children.clear();
    };
    go_to(a, of_a);
    go_to(b, of_b);
  }
  return false;
}

}  // namespace zz::agreement
