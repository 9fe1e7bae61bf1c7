#include "execution/slot_store.hpp"

#include <utility>

namespace zz::execution {

Result<std::unique_ptr<SlotStore>> SlotStore::open(boost::asio::io_context& loop, const Options& options,
                                                   Callbacks callbacks) {
  auto opened = state::ObjectStore::open(options.store);
  if (!opened) return Error{opened.error()};
  return std::unique_ptr<SlotStore>(new SlotStore(loop, options, std::move(opened->store), std::move(callbacks)));
}

SlotStore::SlotStore(boost::asio::io_context& loop, const Options& options, std::unique_ptr<state::ObjectStore> store,
                     Callbacks callbacks)
    : callbacks_(std::move(callbacks)),
      store_(std::move(store)),
      fetcher_(options.fetcher, *store_),
      source_(options.source, *store_),
      keeper_(loop, *store_) {}

void SlotStore::tick(Micros now) {
  fetcher_.tick(now);
  keeper_.tidy();
  turn();
}

void SlotStore::adopted(Seq n) {
  fetcher_.begin(n);
  keeper_.tidy();
}

Refusal SlotStore::step(NodeId from, const agreement::StateParts& answer) {
  const std::lock_guard lock(head_);
  return fetcher_.step(from, answer);
}

Refusal SlotStore::step(NodeId from, const agreement::FetchState& wish, const state::Snapshot& snapshot) {
  StateSource::Answer answer = source_.answer(from, wish, snapshot);
  callbacks_.send(from, std::move(answer.parts));
  return answer.refusal;
}

void SlotStore::digest(const Executor::ToDigest& task) {
  if (digesting_ == task.n) return;
  digesting_ = task.n;
  keeper_.digest(task.snapshot, [this, n = task.n](const Digest& root) {
    digesting_ = Seq{};
    callbacks_.digested(n, root);
  });
}

void SlotStore::turn() {
  source_.sent();
  StateFetcherOutput out;
  {
    const std::lock_guard lock(head_);  // it looks for what is absent
    out = fetcher_.take_output();
  }
  for (auto& [node, wish] : out.ask) callbacks_.send(node, std::move(wish));
  if (out.arrived) callbacks_.supplied();
  if (out.stale) callbacks_.stale();
}

}  // namespace zz::execution
