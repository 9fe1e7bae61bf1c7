#pragma once

// DavLoad: users of a WebDAV server that fill it with files of one size and then read and overwrite them at a steady
// rate. Each user has files of its own, so it knows what every reply must be. It fills its directories by a PUT and
// COPYs of that, since nodes keep whatever was ordered (docs/decisions/0003).
//
// All members may be called from any thread; the users have their own. The destructor ends them (a request in flight is
// waited for).

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "apps/webdav_model.hpp"
#include "base/result.hpp"

namespace zz::apps {

class DavLoad {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::uint32_t kUsers = 8;
  static constexpr std::uint32_t kFilesPerDirectory = 100;
  static constexpr std::uint32_t kReadsPerWrite = 9;

  struct Options {
    std::string url;  // without a final '/'
    std::uint32_t files = 0;
    std::uint64_t file_bytes = 0;
    std::uint32_t rate = 0;  // requests a second, of all users together, once filled
  };
  // Begins to fill.
  explicit DavLoad(Options options);
  ~DavLoad();
  DavLoad(const DavLoad&) = delete;
  DavLoad& operator=(const DavLoad&) = delete;

  // Files that are there; once all are, start() may be called.
  [[nodiscard]] std::uint64_t filled() const;
  void start();
  // No request is begun any more.
  void stop();
  [[nodiscard]] bool idle() const;

  // The next request that is sent counts: when its right reply comes is answered_at().
  void watch_next();
  [[nodiscard]] std::optional<Clock::time_point> answered_at() const;

  [[nodiscard]] std::uint64_t answered() const;
  // The first reply that was wrong or did not come, in words; empty when there was none.
  [[nodiscard]] std::string first_error() const;

 private:
  enum class Mode { kFilling, kRunning, kStopped };
  struct Turn {
    enum class What { kPut, kCopy, kGet };
    std::uint32_t user = 0;
    std::uint32_t file = 0;  // of that user
    What what = What::kGet;
    bool watched = false;
  };
  // What a file holds: a text that names who was written first with it, and how often that had been written then.
  struct Content {
    std::uint32_t file = 0;
    std::uint32_t version = 0;  // 0: there is none
  };

  void run(std::uint32_t user);
  // The user's next request, when it is due; nothing: the end.
  std::optional<Turn> take(std::uint32_t user, std::uint64_t turn, Clock::time_point& due);
  void count(const Turn& turn, bool fills, const std::optional<std::string>& wrong);
  [[nodiscard]] DavRequest request_of(const Turn& turn) const;
  [[nodiscard]] std::string text_of(const Turn& turn) const;
  [[nodiscard]] std::uint32_t files_of(std::uint32_t user) const;

  const Options options_;
  std::vector<std::vector<Content>> contents_;  // of each user's files; touched by its thread alone
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Mode mode_ = Mode::kFilling;
  std::uint32_t busy_ = 0;
  std::uint64_t filled_ = 0;
  std::uint64_t answered_ = 0;
  bool watch_next_ = false;
  std::optional<Clock::time_point> answered_at_;
  std::string first_error_;
  std::vector<std::jthread> users_;  // last: joined before the rest goes
};

}  // namespace zz::apps
