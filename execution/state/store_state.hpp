#pragma once

// What the parts of the object store share: versions, the head, the walk that persists one.

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "execution/state/forest.hpp"
#include "execution/state/object_store.hpp"

namespace zz::execution::state {

// Lives as long as the store or any version.
struct Shared {
  Shared(std::uint64_t memory_bytes, std::unique_ptr<Disk> disk) : forest(memory_bytes, std::move(disk)) {}
  Forest forest;
  std::atomic<std::uint32_t> alive{0};    // snapshots
  std::atomic<std::uint32_t> dropped{0};  // whose nodes are not all reclaimed yet
};

class Version {
 public:
  enum class Kind { kSnapshot, kBase };
  // Takes over `top`. A snapshot counts against snapshots_max, a base does not.
  Version(std::shared_ptr<Shared> shared, Node* its_top, Kind kind);
  ~Version();
  Version(const Version&) = delete;
  Version& operator=(const Version&) = delete;

  [[nodiscard]] bool root_ready() const { return ready_.load(std::memory_order_acquire); }
  [[nodiscard]] const Digest& root() const { return root_; }
  [[nodiscard]] RootImage image() const;  // requires that the top has its digest
  void set_root() const;                  // likewise

  Node* const top;  // null: empty

 private:
  std::shared_ptr<Shared> shared_;
  const Kind kind_;
  mutable Digest root_;
  mutable std::atomic<bool> ready_{false};
};

// A post-order walk over what a snapshot has that is not on disk.
struct Persist {
  struct Frame {
    Inner* inner;
    unsigned next = 0;
    std::array<Record, kFanout> records{};
  };
  Snapshot snapshot;
  Bytes label;
  std::vector<Frame> stack;
  std::optional<Record> top;  // once known; 0: the empty state
  bool parted = false;        // put_part() was here
};

struct ObjectStore::State {
  State(const StoreOptions& its_options, std::unique_ptr<Disk> disk)
      : options(its_options), shared(std::make_shared<Shared>(options.memory_bytes, std::move(disk))) {}
  ~State() { shared->forest.drop(head); }

  Forest& forest() { return shared->forest; }
  [[nodiscard]] Want want(const Node* node, ObjectId toward) const;
  [[nodiscard]] Want root_want(ObjectId toward) const {
    return {PartKind::kRoot, {}, kRootBytesMax, *root_wanted, toward};
  }
  ReadOutcome read(Node* top, ObjectId id, Residency::After after);
  void make_room();
  Snapshot track(Node* top, Version::Kind kind);

  // Fetching.
  void retire_head();
  Node* obtain(const Child& child);
  // The head and all versions; a version is kept while it is looked at.
  struct Tops {
    std::vector<Snapshot> held;
    std::vector<Node*> nodes;
  };
  Tops tops() const;
  Refusal supply_root(ByteView bytes);
  Refusal supply_node(const Part& part);
  Refusal supply_object(const Part& part);
  struct Search {
    std::vector<Want> wants;
    std::size_t limit = 0;
    std::size_t visits = 0;
    std::optional<ObjectId> next;
  };
  bool search(const Node* node, std::uint64_t cursor, Search& search) const;

  // The disk.
  struct Loader;
  void load(const Manifest& manifest);
  void load_part(const Manifest& part);
  enum class Entered { kHave, kPushed, kMissing };
  Entered enter(Node* node, Record& record);
  Progress walk(std::uint64_t bytes);
  bool flush(bool sync);
  Result<Progress> finish();
  [[nodiscard]] std::uint64_t put_inner(const Persist::Frame& frame, Record record);
  Record way_to(Node* node);
  [[nodiscard]] bool put_part();

  StoreOptions options;
  std::shared_ptr<Shared> shared;
  Node* head = nullptr;
  std::optional<Digest> root_wanted;  // the head is known by this alone
  std::vector<std::weak_ptr<const Version>> versions;
  std::vector<Snapshot> bases;  // what adopt() may reuse, the best first
  bool clean_pass = false;      // missing() came from the beginning to its cursor without a want
  ObjectId pass_at;

  Snapshot persisted;
  bool damaged_inner = false;  // it came from the disk without some of its inner nodes
  std::optional<Persist> persist;
  Record next_record = 1;
  std::uint64_t spent = 0;                         // bytes of this persist_some()
  std::uint64_t unflushed = 0;                     // in the batch
  std::uint64_t unparted = 0;                      // written, but no part or manifest leads to it
  std::vector<std::pair<Node*, Record>> assigned;  // in the batch
  std::vector<Record> written;                     // since the last manifest
  std::vector<Record> ways;                        // inner nodes of the part on disk that are not whole there
  std::atomic<bool> part_in_use{false};            // an earlier process's is a base: another one may have less
  std::vector<Record> doomed;                      // ascending

  std::mutex reclaiming;
  std::uint64_t replacements = 0;
  std::uint64_t supplied = 0;
  std::uint64_t reused = 0;
  RefusalCounts refused;
};

}  // namespace zz::execution::state
