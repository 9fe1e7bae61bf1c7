#pragma once

// The demo's users: a few threads, each with one keep-alive connection, its own subtree and its own model of
// it (webdav_model.hpp), so that every reply can be judged exactly and by nothing but what the client itself did.
//
// DavScript makes one user's requests; pure. DavUsers runs several. Requests are made only as far as they
// were granted, so that the owner sets the pace. All members may be called from any thread; the destructor
// ends the threads (a request in flight is waited for).

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "apps/webdav_model.hpp"
#include "base/prng.hpp"
#include "base/result.hpp"

namespace zz::apps {

// A user's mixed requests: PUT, GET, DELETE, PROPFIND, and now and then HEAD, MKCOL, COPY, MOVE. The first
// one makes the subtree's root. The same seed gives the same requests.
class DavScript {
 public:
  // `name`: one path segment, e.g. "user-0"
  DavScript(std::string name, std::uint64_t seed);
  // The next request; the model covers it.
  DavRequest next();
  // What the reply to `request` must be; steps the model.
  DavExpectation expect(const DavRequest& request) { return model_.apply(request); }
  // After a reply that left the subtree's state in doubt: goes on in a new, empty subtree.
  void start_over();
  // Requests that read back everything the subtree should hold.
  [[nodiscard]] std::vector<DavRequest> read_back() const;

 private:
  [[nodiscard]] std::string root() const;
  std::string any_collection();
  std::string any_file();
  std::string fresh_content();
  DavRequest transfer(DavMethod method);
  DavRequest make_collection();

  std::string name_;
  Prng prng_;
  std::uint64_t generation_ = 0;
  std::uint64_t contents_ = 0;
  bool rooted_ = false;
  WebdavModel model_;
};

struct DavCounts {
  std::uint64_t requests = 0;    // sent
  std::uint64_t accepted = 0;    // replies that the model expected
  std::uint64_t wrong = 0;       // replies that it did not
  std::uint64_t unanswered = 0;  // no reply, or the gateway's own 502, 503, 504
};

class DavUsers {
 public:
  static constexpr std::size_t kComplaintsMax = 8;

  DavUsers(std::string base_url, std::size_t users, std::uint64_t seed);
  ~DavUsers();
  DavUsers(const DavUsers&) = delete;
  DavUsers& operator=(const DavUsers&) = delete;

  // `requests` more may be made, by whichever user comes first.
  void grant(std::uint64_t requests);
  // Every user reads back its whole subtree once, beyond what was granted.
  void grant_read_back();
  // No further request is begun. Does not wait.
  void halt();
  [[nodiscard]] DavCounts counts() const;
  // All granted requests are answered or given up.
  [[nodiscard]] bool idle() const;
  // The first wrong or missing replies, one line each.
  [[nodiscard]] std::vector<std::string> complaints() const;
  [[nodiscard]] long connections() const { return connections_.load(); }

 private:
  struct User;
  void run(std::size_t index, std::uint64_t seed);
  enum class Turn { kRequest, kReadBack, kEnd };
  Turn next_turn(bool& read_back_done);
  // False when the reply was not what the model expected.
  bool count(const DavRequest& request, const Result<DavReply>& reply, DavScript& script);
  void finish_turn();

  std::string base_url_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
  bool read_back_ = false;
  std::size_t reading_back_ = 0;  // users that still have to
  std::uint64_t granted_ = 0;     // not yet taken
  std::size_t busy_ = 0;          // users inside a turn
  DavCounts counts_;
  std::vector<std::string> complaints_;
  std::atomic<long> connections_{0};
  std::vector<std::jthread> threads_;  // last: joined before the rest goes
};

}  // namespace zz::apps
