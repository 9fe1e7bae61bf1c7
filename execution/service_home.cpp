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
  beside_.join();
}

statefs::FuseMount::OnMissing ServiceHome::teller() {
  return [&loop = loop_, alive = std::weak_ptr<char>(alive_),
          call = store_.on_missing](const std::vector<state::Want>& wants) {
    asio::post(loop, [alive, call, wants] {
      if (!alive.expired() && call) call(wants);
    });
  };
}

void ServiceHome::copy() {
  ZZ_ASSERT(!is_mounted());
  copy_ = std::make_unique<StateCopy>(files_, *store_.objects, *store_.head, path_, teller());
}

Result<void> ServiceHome::mount() {
  ZZ_ASSERT(!is_mounted());
  if (::mkdir(path_.c_str(), 0755) != 0 && errno != EEXIST && errno != ENOTCONN)
    return Error{"cannot make " + path_ + ": " + std::strerror(errno)};
  if (copy_) {
    copy_->go_on();
    is_in_use_ = true;
    return {};
  }
  auto mounted =
      statefs::FuseMount::mount(files_, *store_.head, {.path = path_, .allow_other = ::geteuid() == 0}, teller());
  if (!mounted) {
    ::rmdir(path_.c_str());  // to be made by who does without
    return Error{mounted.error()};
  }
  mount_ = std::move(*mounted);
  return {};
}

void ServiceHome::unmount() {
  if (!is_mounted()) return;
  if (mount_) {
    mount_->unmount();
  } else {
    copy_->stop();
  }
  {
    std::unique_lock lock(beside_mutex_);
    ++unmounts_;
    beside_ended_.wait(lock, [this] { return !is_beside_busy_; });
  }
  is_in_use_ = false;
  if (!mount_) return;
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
  while (is_mounted()) {
    const Result<bool> step = import.step(kImportStepBytes);
    if (!step) co_return Error{step.error()};
    if (*step) co_return Result<void>();
    co_await asio::post(loop_, asio::use_awaitable);
  }
  co_return Error{"stopped"};
}

asio::awaitable<Result<void>> ServiceHome::restore() {
  if (!copy_) co_return Result<void>();
  std::function<Result<void>()> work = [copy = copy_.get()] { return copy->restore(); };
  co_return co_await beside(std::move(work));
}

// ---- around a request ------------------------------------------------------------------------------------------

void ServiceHome::set_time(Micros agreed) {
  const std::lock_guard lock(*store_.head);
  files_.set_time(agreed);
}

bool ServiceHome::keep() {
  if (copy_) return true;
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
  ZZ_ASSERT(!is_mounted() && kept_);
  const std::lock_guard lock(*store_.head);
  store_.objects->revert(kept_);
  kept_.reset();
  files_.replaced();
}

struct ServiceHome::Task {
  explicit Task(asio::io_context& loop) : done(loop) { done.expires_at(asio::steady_timer::time_point::max()); }
  asio::steady_timer done;
  std::optional<Result<void>> result;
};

void ServiceHome::start(const std::shared_ptr<Task>& task, std::function<Result<void>()> work) {
  std::uint64_t asked_after = 0;
  {
    const std::lock_guard lock(beside_mutex_);
    asked_after = unmounts_;
  }
  asio::post(beside_, [this, &loop = loop_, task, asked_after, work = std::move(work)] {
    bool is_mounted = false;
    {
      const std::lock_guard lock(beside_mutex_);
      is_mounted = is_beside_busy_ = unmounts_ == asked_after;
    }
    Result<void> result = is_mounted ? work() : Result<void>(Error{"unmounted"});
    asio::post(loop, [task, result = std::move(result)] {
      task->result = result;
      task->done.cancel();
    });
    const std::lock_guard lock(beside_mutex_);  // after the post: who unmounts may end the loop next
    is_beside_busy_ = false;
    beside_ended_.notify_all();
  });
}

asio::awaitable<Result<void>> ServiceHome::beside(std::function<Result<void>()> work) {
  if (!is_mounted()) co_return Error{"unmounted"};
  const auto task = std::make_shared<Task>(loop_);
  start(task, std::move(work));
  boost::system::error_code cancelled;
  while (!task->result) co_await task->done.async_wait(asio::redirect_error(asio::use_awaitable, cancelled));
  co_return *task->result;
}

asio::awaitable<Result<void>> ServiceHome::settle() {
  if (!is_mounted()) co_return Error{"unmounted"};
  if (copy_ || mount_->is_settled()) co_return Result<void>();
  std::function<Result<void>()> work = [mount = mount_.get()] { return mount->settle(); };
  co_return co_await beside(std::move(work));
}

asio::awaitable<Result<void>> ServiceHome::save(Micros agreed, StateCopy::Mapped mapped) {
  if (!copy_) co_return Result<void>();
  std::function<Result<void>()> work = [copy = copy_.get(), agreed, mapped = std::move(mapped)] {
    return copy->save(agreed, mapped);
  };
  co_return co_await beside(std::move(work));
}

// ---- the state from elsewhere ----------------------------------------------------------------------------------

void ServiceHome::supplied() {
  has_asked_ = false;
  if (mount_) mount_->supplied();
  if (copy_) copy_->supplied();
}

void ServiceHome::replaced() {
  ZZ_ASSERT(!is_mounted());
  const std::lock_guard lock(*store_.head);
  kept_.reset();
  has_asked_ = false;
  files_.replaced();
}

std::chrono::microseconds ServiceHome::waited() const {
  return waited_before_ + (mount_ ? mount_->counters().waited : std::chrono::microseconds{0});
}

}  // namespace zz::execution
