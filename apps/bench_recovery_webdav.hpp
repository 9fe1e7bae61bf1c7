#pragma once

// `zz bench recovery-webdav`: how soon a woken replica is of use to an nginx with WebDAV that keeps its files in the
// state file system, by the number of files.

#include <CLI/CLI.hpp>

namespace zz::apps {

void add_bench_recovery_webdav(CLI::App& bench, int& exit_code);

}  // namespace zz::apps
