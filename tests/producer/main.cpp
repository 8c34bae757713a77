// SPDX-License-Identifier: Apache-2.0
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <getopt.h>
#include <memory>
#include <string>
#include <unistd.h>
#include <vector>

#include <fmt/format.h>
#include <openssl/evp.h>

#include "machine.hpp"
#include "server.hpp"
#include "workload.hpp"

using namespace blkferry;
using namespace blkferry::producer;

namespace {

constexpr std::string_view usage =
    "blkferry-producer --socket PATH --disk FILE[:MIB] [--disk ...] [options]\n"
    "Acts as a machine with the blkferry module: file-backed disks, captured and served to an agent.\n"
    "  --disk FILE[:MIB]   a disk over FILE; with MIB it is made or resized\n"
    "  --seed N --ops N --rate OPS_PER_SECOND --depth N --block BYTES --first SECTOR --span SECTORS\n"
    "  --pattern random|sequential|hot|ordered   --sizes fixed|mixed   --contents random|text|zero|mixed\n"
    "  --discard PCT --zeroes PCT --cancel PCT --fail PCT --overlap\n"
    "  --start             start writing at once\n"
    "Commands on stdin, one answer of one JSON line each:\n"
    "  start, stop (waits until nothing is in flight), wait (for --ops), stats, info, hash (SHA-256 of each disk),\n"
    "  write DISK SECTOR SECTORS BYTE, grow DISK MIB, cut, spoil garbage|hole (of the first disk), quit\n";

struct Options {
    std::string socket;
    std::vector<std::pair<std::string, std::uint64_t>> disks;
    WorkloadConfig workload;
    bool start = false;
};

template <class T>
Result<T> number(std::string_view text) {
    T v{};
    const auto r = std::from_chars(text.data(), text.data() + text.size(), v);
    if (r.ec != std::errc() || r.ptr != text.data() + text.size())
        return fail(Errc::invalid, fmt::format("'{}' is not a number in range", text));
    return v;
}

Result<void> set_disk(std::string_view text, Options& o) {
    const auto colon = text.rfind(':');
    std::uint64_t mib = 0;
    if (colon != std::string_view::npos) {
        BLKFERRY_TRY_ASSIGN(mib, number<std::uint64_t>(text.substr(colon + 1)));
    }
    o.disks.emplace_back(text.substr(0, colon), mib << 20);
    return {};
}

template <class T>
Result<void> set(T& field, std::string_view text) {
    BLKFERRY_TRY_ASSIGN(field, number<T>(text));
    return {};
}

template <class T>
Result<void> set_parsed(T& field, Result<T> parsed) {
    BLKFERRY_TRY_ASSIGN(field, std::move(parsed));
    return {};
}

Result<void> set_option(std::string_view name, std::string_view arg, Options& o) {
    WorkloadConfig& w = o.workload;
    if (name == "socket")
        o.socket = arg;
    else if (name == "disk")
        return set_disk(arg, o);
    else if (name == "seed")
        return set(w.seed, arg);
    else if (name == "ops")
        return set(w.ops, arg);
    else if (name == "rate")
        return set(w.ops_per_second, arg);
    else if (name == "depth")
        return set(w.depth, arg);
    else if (name == "block")
        return set(w.block_bytes, arg);
    else if (name == "first")
        return set(w.first_sector, arg);
    else if (name == "span")
        return set(w.sectors, arg);
    else if (name == "discard")
        return set(w.discard_percent, arg);
    else if (name == "zeroes")
        return set(w.zeroes_percent, arg);
    else if (name == "cancel")
        return set(w.cancel_percent, arg);
    else if (name == "fail")
        return set(w.fail_percent, arg);
    else if (name == "pattern")
        return set_parsed(w.pattern, parse_pattern(arg));
    else if (name == "contents")
        return set_parsed(w.contents, parse_contents(arg));
    else if (name == "sizes")
        w.sizes = arg == "mixed" ? Sizes::mixed : Sizes::fixed;
    else if (name == "overlap")
        w.overlap = true;
    else if (name == "start")
        o.start = true;
    return {};
}

Result<Options> parse(int argc, char** argv) {
    static constexpr const char* with_argument[] = {"socket", "disk",    "seed",   "ops",    "rate",    "depth", "block",   "first",
                                                    "span",   "discard", "zeroes", "cancel", "pattern", "fail",  "contents", "sizes"};
    std::vector<option> longs;
    for (const char* name : with_argument)
        longs.push_back({name, required_argument, nullptr, 'o'});
    for (const char* name : {"overlap", "start"})
        longs.push_back({name, no_argument, nullptr, 'o'});
    longs.push_back({"help", no_argument, nullptr, 'h'});
    longs.push_back({nullptr, 0, nullptr, 0});
    Options o;
    int index = 0;
    for (int c = 0; (c = ::getopt_long(argc, argv, "h", longs.data(), &index)) != -1;) {
        if (c == 'h') {
            std::fwrite(usage.data(), 1, usage.size(), stdout);
            std::exit(0);
        }
        if (c != 'o')
            return fail(Errc::invalid, "unknown option; see --help");
        const char* name = longs[static_cast<std::size_t>(index)].name;
        if (auto r = set_option(name, optarg == nullptr ? "" : optarg, o); !r)
            return std::unexpected(std::move(r).error().with(fmt::format("--{}", name)));
    }
    if (o.socket.empty() || o.disks.empty() || optind != argc)
        return fail(Errc::invalid, "--socket and at least one --disk are needed; see --help");
    return o;
}

Result<std::uint64_t> add_disk(Machine& machine, const std::string& path, std::uint64_t bytes) {
    if (bytes != 0) {
        BLKFERRY_TRY_ASSIGN(const Fd fd, open_file(path, O_RDWR | O_CREAT));
        if (::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0)
            return fail_errno(errno, fmt::format("cannot resize {}", path));
    }
    return machine.add_device(path);
}

void answer(const std::string& json) {
    fmt::print("{}\n", json);
    std::fflush(stdout);
}

void answer_error(std::string text) {
    std::erase_if(text, [](char c) { return c == '"' || c == '\\' || static_cast<unsigned char>(c) < 0x20; });
    answer(fmt::format(R"({{"ok": false, "error": "{}"}})", text));
}

Result<std::string> hash_file(const std::string& path) {
    BLKFERRY_TRY_ASSIGN(const Fd fd, open_file(path, O_RDONLY));
    std::vector<unsigned char> buffer(1U << 20);
    const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> ctx(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
    BLKFERRY_ASSERT(ctx && EVP_DigestInit_ex(ctx.get(), EVP_sha256(), nullptr) == 1);
    for (;;) {
        const ssize_t n = ::read(fd.get(), buffer.data(), buffer.size());
        if (n < 0)
            return fail_errno(errno, fmt::format("cannot read {}", path));
        if (n == 0)
            break;
        BLKFERRY_ASSERT(EVP_DigestUpdate(ctx.get(), buffer.data(), static_cast<std::size_t>(n)) == 1);
    }
    unsigned char sum[EVP_MAX_MD_SIZE];
    unsigned int len = 0;
    BLKFERRY_ASSERT(EVP_DigestFinal_ex(ctx.get(), sum, &len) == 1);
    std::string hex;
    for (unsigned int i = 0; i < len; ++i)
        hex += fmt::format("{:02x}", sum[i]);
    return hex;
}

Result<std::string> hash_all(Machine& machine, const std::vector<std::uint64_t>& devs) {
    std::string list;
    for (const std::uint64_t dev : devs) {
        BLKFERRY_TRY_ASSIGN(const std::string path, machine.path(dev));
        BLKFERRY_TRY_ASSIGN(const std::string hash, hash_file(path));
        list += fmt::format(R"({}{{"path": "{}", "sha256": "{}"}})", list.empty() ? "" : ", ", path, hash);
    }
    return fmt::format(R"({{"ok": true, "disks": [{}]}})", list);
}

std::string stats_of(const Workload& w) {
    const Workload::Stats s = w.stats();
    return fmt::format(R"({{"ok": {}, "running": {}, "ops": {}, "bytes": {}, "cancelled": {}, "failed": {}}})",
                       s.error.empty(), w.running(), s.ops, s.bytes, s.cancelled, s.failed);
}

std::string info_of(Machine& machine) {
    std::string list;
    for (const std::uint32_t id : machine.disks()) {
        const auto d = machine.disk(id);
        if (!d)
            continue;
        const capture::DiskInfo i = (*d)->info();
        list += fmt::format(
            R"({}{{"disk": {}, "path": "{}", "state": "{}", "gap_seq": {}, "active_blocks": {}, "snap_blocks": {}, "overflows": {}}})",
            list.empty() ? "" : ", ", id, i.device_path, to_string(i.state), i.gap_seq, i.active_blocks, i.snap_blocks,
            i.counters[BLKFERRY_C_OVERFLOWS]);
    }
    const capture::TrackerInfo i = machine.info();
    return fmt::format(R"({{"ok": true, "seq": {}, "void_seq": {}, "disks": [{}]}})", i.seq, i.void_seq, list);
}

Result<std::vector<std::uint64_t>> numbers(std::string_view args) {
    std::vector<std::uint64_t> v;
    while (!args.empty()) {
        const auto space = args.find(' ');
        BLKFERRY_TRY_ASSIGN(const std::uint64_t n, number<std::uint64_t>(args.substr(0, space)));
        v.push_back(n);
        args = space == std::string_view::npos ? "" : args.substr(space + 1);
    }
    return v;
}

/// grow DISK MIB
Result<void> grow_one(Machine& machine, const std::vector<std::uint64_t>& devs, std::string_view args) {
    BLKFERRY_TRY_ASSIGN(const auto v, numbers(args));
    if (v.size() != 2 || v[0] >= devs.size() || v[1] > (1U << 20))
        return fail(Errc::invalid, "grow DISK MIB");
    return machine.grow(devs[v[0]], v[1] << 20);
}

/// write DISK SECTOR SECTORS BYTE: one write of equal bytes.
Result<void> write_one(Machine& machine, const std::vector<std::uint64_t>& devs, std::string_view args) {
    BLKFERRY_TRY_ASSIGN(const auto v, numbers(args));
    if (v.size() != 4 || v[0] >= devs.size() || v[2] == 0 || v[2] > (1U << 20) || v[3] > 255)
        return fail(Errc::invalid, "write DISK SECTOR SECTORS BYTE");
    const std::vector<std::byte> data(v[2] * sector_bytes, static_cast<std::byte>(v[3]));
    return machine.write(capture::OpKind::write, devs[v[0]], v[1], v[2], data);
}

/// Runs one command; false: quit.
bool command(Machine& machine, const std::vector<std::uint64_t>& devs, Workload& w, const std::string& line) {
    if (line == "quit")
        return false;
    if (line == "start") {
        w.start();
        answer(R"({"ok": true})");
    } else if (line == "stop") {
        w.stop();
        answer(stats_of(w));
    } else if (line == "wait") {
        w.wait();
        answer(stats_of(w));
    } else if (line == "stats") {
        answer(stats_of(w));
    } else if (line == "info") {
        answer(info_of(machine));
    } else if (line == "hash") {
        const auto r = hash_all(machine, devs);
        r ? answer(*r) : answer_error(r.error().text);
    } else if (line == "cut") {
        const auto r = machine.cut(false);
        r ? answer(fmt::format(R"({{"ok": true, "seq": {}}})", *r)) : answer_error(r.error().text);
    } else if (line == "spoil garbage" || line == "spoil hole") {
        const auto ids = machine.disks();
        const auto disk = ids.empty() ? Result<std::shared_ptr<Disk>>(fail(Errc::not_found, "no disk")) : machine.disk(ids.front());
        if (disk)
            (*disk)->spoil(line == "spoil garbage");
        disk ? answer(R"({"ok": true})") : answer_error(disk.error().text);
    } else if (line.starts_with("grow ") || line.starts_with("write ")) {
        const auto args = std::string_view(line).substr(line.find(' ') + 1);
        const auto r = line.starts_with("grow ") ? grow_one(machine, devs, args) : write_one(machine, devs, args);
        r ? answer(R"({"ok": true})") : answer_error(r.error().text);
    } else {
        answer_error("unknown command " + line);
    }
    return true;
}

Result<void> run(const Options& o) {
    Machine machine;
    std::vector<std::uint64_t> devs;
    for (const auto& [path, bytes] : o.disks) {
        BLKFERRY_TRY_ASSIGN(const std::uint64_t dev, add_disk(machine, path, bytes));
        BLKFERRY_TRY_ASSIGN(const std::uint64_t sectors, machine.sectors(dev));
        if (sectors < o.workload.first_sector + 2048)
            return fail(Errc::invalid, fmt::format("{} is too small: 1 MiB beyond --first is needed", path));
        devs.push_back(dev);
    }
    Workload workload(machine, devs, o.workload);
    BLKFERRY_TRY_ASSIGN(const std::unique_ptr<Server> server, Server::start(machine, o.socket));
    answer(R"({"ok": true, "ready": true})");
    if (o.start)
        workload.start();
    std::string line;
    for (int c = 0; (c = std::getchar()) != EOF;) {
        if (c != '\n') {
            line += static_cast<char>(c);
            continue;
        }
        if (!command(machine, devs, workload, line))
            break;
        line.clear();
    }
    workload.stop();
    return {};
}

}  // namespace

int main(int argc, char** argv) {
    std::signal(SIGPIPE, SIG_IGN);
    const auto options = parse(argc, argv);
    if (!options) {
        fmt::print(stderr, "blkferry-producer: {}\n", options.error().text);
        return 2;
    }
    if (const auto r = run(*options); !r) {
        fmt::print(stderr, "blkferry-producer: {}\n", r.error().text);
        return 1;
    }
    return 0;
}
