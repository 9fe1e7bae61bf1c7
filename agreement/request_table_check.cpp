// RequestTable::check, apart from what runs in service.

#include <algorithm>

#include "agreement/request_table.hpp"
#include "base/assert.hpp"

namespace zz::agreement {

void RequestTable::check() const {
  std::size_t pending = 0;
  std::size_t queued = 0;
  std::uint64_t queued_bytes = 0;
  std::uint64_t bytes = 0;
  for (const auto& client : clients_) {
    std::size_t client_queued = 0;
    std::uint64_t client_bytes = 0;
    std::uint32_t live = 0;
    std::uint32_t ordered = 0;
    for (const auto& session : client->sessions) {
      ZZ_ASSERT(session->owner == client.get());
      ZZ_ASSERT(session->ring.size() < 2 * span_ || session->ring.empty());
      std::uint32_t of_session = 0;
      for (std::uint64_t i = 1; i <= session->ring.size(); ++i) {
        const Entry* entry = peek(*session, session->low + i);
        ZZ_ASSERT(!entry->delivered || (!entry->request && entry->claimed_by == 0));
        ZZ_ASSERT(i > 1 || !entry->delivered);
        const bool in_queue = std::count_if(client->queue.begin(), client->queue.end(), [&](const Queued& item) {
                                return item.session == session.get() && item.number == session->low + i;
                              }) == 1;
        ZZ_ASSERT(entry->in_queue == in_queue);
        if (!entry->request) continue;
        ++of_session;
        client_bytes += entry->request->op.size();
        if (entry->claimed_by != 0) continue;
        ZZ_ASSERT(in_queue);
        ++client_queued;
        queued_bytes += entry->request->op.size();
      }
      ZZ_ASSERT(of_session == session->pending);
      pending += of_session;
      live += of_session > 0 ? 1u : 0u;
      ordered += session->last_use != 0 && session->dies_at == 0 ? 1u : 0u;
    }
    ZZ_ASSERT(client_queued == client->queued && client_bytes == client->bytes);
    ZZ_ASSERT(live == client->live && ordered == client->ordered && ordered <= limits_.client_sessions_max);
    ZZ_ASSERT(client->ready == (std::count(ready_.begin(), ready_.end(), client.get()) == 1));
    ZZ_ASSERT(client_queued == 0 || client->ready);
    ZZ_ASSERT(client->queue.size() <= 2 * limits_.client_sessions_max * span_ + kQueueSlack + 1);
    queued += client_queued;
    bytes += client_bytes;
  }
  ZZ_ASSERT(pending == pending_ && queued == queued_ && queued_bytes == queued_bytes_ && bytes == bytes_);
}

}  // namespace zz::agreement
