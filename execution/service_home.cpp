#include "execution/service_home.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/assert.hpp"
#include "execution/state_import.hpp"

namespace zz::execution {

namespace {

namespace asio = boost::asio;

constexpr std::size_t kImportStepBytes = 1 << 20;
constexpr std::size_t kReclaimNodes = 1'024;

}  // namespace

ServiceHome::ServiceHome(asio::io_context& loop, ServiceStore store, std::string path)
    : loop_(loop), store_(std::move(store)), path_(std::move(path)), files_(*store_.objects, store_.limits) {}

ServiceHome::~ServiceHome() {
  unmount();
  settler_.join();
}

Result<void> ServiceHome::mount() {
  ZZ_ASSERT(!mount_);
  const auto tell = [&loop = loop_, alive = std::weak_ptr<char>(alive_),
                     call = store_.on_missing](const std::vector<state::Want>& wants) {
    asio::post(loop, [alive, call, wants] {
      if (!alive.expired() && call) call(wants);
    });
  };
  if (::mkdir(path_.c_str(), 0755) != 0 && errno != EEXIST && errno != ENOTCONN)
    return Error{"cannot make " + path_ + ": " + std::strerror(errno)};
  auto mounted =
      statefs::FuseMount::mount(files_, *store_.head, {.path = path_, .allow_other = ::geteuid() == 0}, tell);
  if (!mounted) {
    ::rmdir(path_.c_str());  // to be made by who does without
    return Error{mounted.error()};
  }
  mount_ = std::move(*mounted);
  const std::lock_guard lock(settling_mutex_);
  settled_mount_ = mount_.get();
  return {};
}

void ServiceHome::unmount() {
  if (!mount_) return;
  mount_->unmount();
  {
    std::unique_lock lock(settling_mutex_);
    settled_mount_ = nullptr;
    settled_.wait(lock, [this] { return !is_settling_; });
  }
  waited_before_ += mount_->counters().waited;
  mount_.reset();
}

asio::awaitable<Result<void>> ServiceHome::import(std::string from) {
  {
    const std::lock_guard lock(*store_.head);
    const statefs::AttributesOutcome root = files_.stat(statefs::kRootInode);
    if (root.ok() || !root.missing.empty()) co_return Result<void>();
  }
  StateImport import(files_, *store_.head, std::move(from), {::geteuid(), ::getegid()});
  while (mount_) {
    const Result<bool> step = import.step(kImportStepBytes);
    if (!step) co_return Error{step.error()};
    if (*step) co_return Result<void>();
    co_await asio::post(loop_, asio::use_awaitable);
  }
  co_return Error{"stopped"};
}

// ---- around a request ------------------------------------------------------------------------------------------

void ServiceHome::set_time(Micros agreed) {
  const std::lock_guard lock(*store_.head);
  files_.set_time(agreed);
}

bool ServiceHome::keep() {
  std::vector<state::Want> wants;
  {
    const std::lock_guard lock(*store_.head);
    kept_.reset();
    // As much as a request leaves behind, so that its snapshot's place is free for the next.
    store_.objects->reclaim_some(kReclaimNodes);
    if (auto snapshot = store_.objects->snapshot()) {
      kept_ = std::move(*snapshot);
      return true;
    }
    // There is none of a state that is known by its digest alone, and perhaps the service has not looked at it yet.
    if (!std::exchange(has_asked_, true)) wants = files_.stat(statefs::kRootInode).missing;
  }
  if (!wants.empty() && store_.on_missing) store_.on_missing(wants);
  return false;
}

void ServiceHome::forget() { kept_.reset(); }

void ServiceHome::roll_back() {
  ZZ_ASSERT(!mount_ && kept_);
  const std::lock_guard lock(*store_.head);
  store_.objects->revert(kept_);
  kept_.reset();
  files_.replaced();
}

struct ServiceHome::Settling {
  explicit Settling(asio::io_context& loop) : done(loop) { done.expires_at(asio::steady_timer::time_point::max()); }
  asio::steady_timer done;
  std::optional<Result<void>> result;
};

void ServiceHome::start_settling(const std::shared_ptr<Settling>& settling) {
  asio::post(settler_, [this, &loop = loop_, settling] {
    statefs::FuseMount* mount = nullptr;
    {
      const std::lock_guard lock(settling_mutex_);
      mount = settled_mount_;
      is_settling_ = mount != nullptr;
    }
    Result<void> result = mount != nullptr ? mount->settle() : Result<void>(Error{"unmounted"});
    asio::post(loop, [settling, result = std::move(result)] {
      settling->result = result;
      settling->done.cancel();
    });
    const std::lock_guard lock(settling_mutex_);  // after the post: who unmounts may end the loop next
    is_settling_ = false;
    settled_.notify_all();
  });
}

asio::awaitable<Result<void>> ServiceHome::settle() {
  if (!mount_) co_return Error{"unmounted"};
  if (mount_->is_settled()) co_return Result<void>();
  const auto settling = std::make_shared<Settling>(loop_);
  start_settling(settling);
  boost::system::error_code cancelled;
  while (!settling->result) co_await settling->done.async_wait(asio::redirect_error(asio::use_awaitable, cancelled));
  co_return *settling->result;
}

// ---- the state from elsewhere ----------------------------------------------------------------------------------

void ServiceHome::supplied() {
  has_asked_ = false;
  if (mount_) mount_->supplied();
}

void ServiceHome::replaced() {
  ZZ_ASSERT(!mount_);
  const std::lock_guard lock(*store_.head);
  kept_.reset();
  has_asked_ = false;
  files_.replaced();
}

std::chrono::microseconds ServiceHome::waited() const {
  return waited_before_ + (mount_ ? mount_->counters().waited : std::chrono::microseconds{0});
}

}  // namespace zz::execution
