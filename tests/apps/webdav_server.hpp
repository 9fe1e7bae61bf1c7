#pragma once

// A real nginx with WebDAV (the sample service), alone, on a free port and a fresh directory, as long as this lives.

#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "apps/webdav_client.hpp"
#include "execution/service_process.hpp"
#include "execution/webdav_sample.hpp"

namespace zz::apps {

class WebdavServer {
 public:
  WebdavServer() {
    std::string name = (std::filesystem::temp_directory_path() / "zz-webdav-XXXXXX").string();
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    root_ = name;
  }
  ~WebdavServer() {
    process_.reset();
    std::error_code ignored;
    std::filesystem::remove_all(root_, ignored);
  }
  WebdavServer(const WebdavServer&) = delete;
  WebdavServer& operator=(const WebdavServer&) = delete;

  // Starts it and waits until it answers.
  void start() {
    namespace fs = std::filesystem;
    const auto sample = execution::make_webdav_sample((root_ / "initial").string());
    ASSERT_TRUE(sample.ok()) << sample.error();
    fs::create_directories(root_ / "work");
    fs::copy(sample->initial_state, root_ / "work" / "state", fs::copy_options::recursive);
    auto port = execution::PortReservation::make();
    ASSERT_TRUE(port.ok()) << port.error();
    auto started = execution::ServiceProcess::start(loop_,
                                                    {.argv = sample->command,
                                                     .work_dir = (root_ / "work").string(),
                                                     .state_dir = (root_ / "work" / "state").string(),
                                                     .log_path = (root_ / "service.log").string(),
                                                     .port = port->port()},
                                                    [](const std::string&) {});
    ASSERT_TRUE(started.ok()) << started.error();
    process_ = std::move(started).value();
    url_ = "http://127.0.0.1:" + std::to_string(port->port());
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    WebdavClient client(url_);
    while (!client.perform({.method = DavMethod::kPropfind, .path = "/"}).ok()) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "nginx does not answer";
    }
  }
  [[nodiscard]] const std::string& url() const { return url_; }

 private:
  std::filesystem::path root_;
  boost::asio::io_context loop_;
  std::unique_ptr<execution::ServiceProcess> process_;
  std::string url_;
};

}  // namespace zz::apps
