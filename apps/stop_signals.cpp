#include "apps/stop_signals.hpp"

#include <sys/signalfd.h>
#include <unistd.h>

#include <initializer_list>

#include "base/assert.hpp"

namespace zz::apps {

StopSignals::StopSignals() {
  sigset_t wanted;
  sigemptyset(&wanted);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&wanted, number);
  ZZ_ASSERT(pthread_sigmask(SIG_BLOCK, &wanted, &before_) == 0);
  fd_ = signalfd(-1, &wanted, SFD_NONBLOCK | SFD_CLOEXEC);
  ZZ_ASSERT(fd_ >= 0);
}

StopSignals::~StopSignals() {
  static_cast<void>(requested());
  ::close(fd_);
  pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

bool StopSignals::requested() {
  signalfd_siginfo info{};
  while (::read(fd_, &info, sizeof info) == sizeof info) seen_ = true;
  return seen_;
}

}  // namespace zz::apps
