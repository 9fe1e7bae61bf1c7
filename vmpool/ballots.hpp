#pragma once

// What agreement nodes have told this host, counted by distinct nodes (docs/protocol.md §2): the WAKEs for
// one sleeping guest and the notices of one service's slot table. One thread, no time. Memory: one entry per node.

#include <cstdint>
#include <optional>
#include <vector>

#include "agreement/messages.hpp"
#include "base/ids.hpp"
#include "base/refusal.hpp"

namespace zz::vmpool {

// WAKEs for one guest. Nodes count together only when they name the same epoch; a node's newer epoch replaces
// its older one.
class WakeBallot {
 public:
  WakeBallot(std::uint32_t nodes, std::uint32_t f) : said_(nodes), f_(f) {}

  // Whether a WAKE of that node would count; asked before its signature is checked. `node` < nodes.
  [[nodiscard]] Refusal admit(NodeId node, Epoch epoch) const;
  // Requires admit(). True when f+1 distinct nodes now say the same.
  [[nodiscard]] bool add(NodeId node, Epoch epoch);
  void clear();

 private:
  std::vector<std::optional<Epoch>> said_;  // by node
  std::uint32_t f_;
};

// Notices of one service. The believed one is the newest that f+1 distinct nodes hold equally; it never goes back.
class NoticeBoard {
 public:
  struct Shape {
    std::uint32_t nodes = 0;
    std::uint32_t f = 0;
    std::uint32_t g = 0;
  };
  explicit NoticeBoard(Shape shape) : shape_(shape), latest_(shape.nodes) {}

  // `node` < nodes. The notice's service is not looked at.
  Refusal add(NodeId node, const agreement::EpochNotice& notice);
  // True once after each change of believed().
  [[nodiscard]] bool take_changed();
  [[nodiscard]] const std::optional<agreement::EpochNotice>& believed() const { return believed_; }

 private:
  [[nodiscard]] bool well_formed(const agreement::EpochNotice& notice) const;

  Shape shape_;
  std::vector<std::optional<agreement::EpochNotice>> latest_;  // by node
  std::optional<agreement::EpochNotice> believed_;
  bool changed_ = false;
};

}  // namespace zz::vmpool
