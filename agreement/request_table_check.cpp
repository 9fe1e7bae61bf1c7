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
  std::size_t all_unasked = 0;
  for (const auto& client : clients_) {
    std::size_t waiting_of_client = 0;
    std::size_t unasked = 0;
    std::uint64_t client_bytes = 0;
    std::size_t live = 0;
    std::size_t ordered = 0;
    for (const auto& session : client->sessions) {
      ZZ_ASSERT(session->owner == client.get());
      ZZ_ASSERT(session->ring.size() < 2 * span_ || session->ring.empty());
      std::uint32_t of_session = 0;
      for (std::uint64_t i = 1; i <= session->ring.size(); ++i) {
        const Entry* entry = peek(*session, session->low + i);
        const auto stands_in = [&](const std::deque<Queued>& line) {
          const auto count = std::count_if(line.begin(), line.end(), [&](const Queued& item) {
            return item.session == session.get() && item.number == session->low + i;
          });
          ZZ_ASSERT(count <= 1);
          return count == 1;
        };
        ZZ_ASSERT(!entry->delivered || (!entry->request && entry->claimed_by == 0));
        ZZ_ASSERT(i > 1 || !entry->delivered);
        ZZ_ASSERT(entry->in_queue == stands_in(client->queue) && entry->in_backed == stands_in(client->backed));
        const bool waits = entry->request && entry->claimed_by == 0;
        ZZ_ASSERT(entry->free == (waits && may_go(*client, *entry)));
        ZZ_ASSERT(!entry->free || !client->unproven || entry->in_backed);
        if (!entry->request) continue;
        ++of_session;
        client_bytes += entry->request->op.size();
        if (!waits) continue;
        ZZ_ASSERT(entry->in_queue);
        ++waiting_of_client;
        unasked += client->unproven && !entry->asked ? 1u : 0u;
        if (!entry->free) continue;
        ZZ_ASSERT(client->ready);
        ++queued;
        queued_bytes += entry->request->op.size();
      }
      ZZ_ASSERT(of_session == session->pending);
      pending += of_session;
      const auto listed = [&](const std::vector<Session*>& list) {
        return std::count(list.begin(), list.end(), session.get()) == 1;
      };
      ZZ_ASSERT(listed(client->live) == (of_session > 0));
      ZZ_ASSERT(listed(client->ordered) == (session->last_use != 0 && session->dies_at == 0));
      live += of_session > 0 ? 1u : 0u;
      ordered += session->last_use != 0 && session->dies_at == 0 ? 1u : 0u;
    }
    ZZ_ASSERT(waiting_of_client == client->waiting && unasked == client->unasked && client_bytes == client->bytes);
    ZZ_ASSERT(live == client->live.size() && live <= limits_.client_sessions_max);
    ZZ_ASSERT(ordered == client->ordered.size() && ordered <= limits_.client_sessions_max);
    ZZ_ASSERT(client->ready == (std::count(ready_.begin(), ready_.end(), client.get()) == 1));
    ZZ_ASSERT(client->queue.size() <= 2 * limits_.client_sessions_max * span_ + kQueueSlack + 1);
    ZZ_ASSERT(client->backed.size() <= 2 * limits_.client_sessions_max * span_ + kQueueSlack + 1);
    bytes += client_bytes;
    all_unasked += unasked;
  }
  ZZ_ASSERT(pending == pending_ && queued == queued_ && queued_bytes == queued_bytes_ && bytes == bytes_);
  ZZ_ASSERT(all_unasked == unasked_);
}

}  // namespace zz::agreement
