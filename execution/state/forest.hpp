#pragma once

// Forest: the trees of all versions of one store, which share their nodes.
//
// find, next, digest_some, image and drop may run on any thread over the tree of a held version; put and erase on the
// head's thread over the head's. A tree is named by its top node; a top that an operation takes over is written
// "owned".

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "execution/state/residency.hpp"

namespace zz::execution::state {

class Forest {
 public:
  Forest(std::uint64_t memory_bytes, std::unique_ptr<Disk> disk)
      : disk_(std::move(disk)), residency_(memory_bytes, disk_.get()) {}
  ~Forest();
  Forest(const Forest&) = delete;
  Forest& operator=(const Forest&) = delete;

  // ---- nodes: made with one reference
  Leaf* make_leaf(ObjectId id, ByteView bytes);
  Node* make_absent(const Child& child);
  // Children in slot order, their references taken over.
  Inner* make_inner(const Place& place, const std::vector<Node*>& children);
  // An absent inner node gets its children.
  void fill(Inner* inner, const std::vector<Node*>& children);
  // Gives one reference back. A leaf is freed at once, what hangs on an inner node by reclaim().
  void drop(Node* node);
  // False: nothing left.
  bool reclaim(std::size_t nodes);

  // ---- trees
  struct Found {
    Leaf* leaf = nullptr;     // the object
    Inner* absent = nullptr;  // or the node that must be known first
  };
  static Found find(Node* top, ObjectId id);
  // The node of exactly this place.
  static Node* at(Node* top, const Place& place);
  // The first leaf at or above `from`, unless an absent node may have it.
  static Found next(Node* top, std::uint64_t from);
  // Takes over top and leaf. Requires that find() gave no absent node.
  [[nodiscard]] Node* put(Node* top, Leaf* leaf);
  // Takes over top; the object must be there.
  [[nodiscard]] Node* erase(Node* top, ObjectId id);

  // True: the top has its digest. Spends about a unit of `budget` per byte hashed.
  bool digest(Node* node, std::int64_t& budget);
  // Requires a node that is there, with its digest.
  static NodeImage image(const Inner* inner);

  Residency& residency() { return residency_; }
  const Residency& residency() const { return residency_; }
  Disk* disk() { return disk_.get(); }
  void trim(std::size_t objects, std::uint64_t above, bool& more);

 private:
  Inner* own(Inner* inner);
  static void insert_child(Inner* inner, unsigned slot, Node* child);
  static void remove_child(Inner* inner, unsigned slot);
  void changed(Inner* inner);
  void bury(Inner* inner);

  std::unique_ptr<Disk> disk_;
  Residency residency_;
  std::mutex graveyard_mutex_;
  std::vector<Inner*> graveyard_;  // without references; they still hold their children
};

}  // namespace zz::execution::state
