// SPDX-License-Identifier: Apache-2.0
#include "agent/self_check.hpp"

#include <array>
#include <cerrno>
#include <charconv>
#include <fcntl.h>
#include <unistd.h>
#include <utility>

#include <blkferry.h>
#include <fmt/format.h>

#include "base/fd.hpp"

namespace blkferry::agent {

namespace {
constexpr std::size_t written_field = 6;
constexpr std::size_t discarded_field = 13;
constexpr std::size_t fields_max = 14;  ///< later ones do not matter
}  // namespace

Result<std::uint64_t> parse_disk_stat(std::string_view text) {
    std::array<std::uint64_t, fields_max> fields{};
    std::size_t n = 0;
    const char* at = text.data();
    const char* const end = at + text.size();
    while (n < fields.size()) {
        while (at != end && (*at == ' ' || *at == '\n'))
            ++at;
        if (at == end)
            break;
        const auto [next, err] = std::from_chars(at, end, fields[n]);
        if (err != std::errc{} || (next != end && *next != ' ' && *next != '\n'))
            return fail(Errc::corrupt, fmt::format("field {} of a disk's stat file is not a number", n + 1));
        at = next;
        ++n;
    }
    if (n <= written_field)
        return fail(Errc::corrupt, fmt::format("a disk's stat file has {} fields", n));
    return fields[written_field] + fields[discarded_field];
}

Result<std::uint64_t> read_disk_stat(std::uint64_t dev) {
    const std::string path = fmt::format("/sys/dev/block/{}:{}/stat", dev >> 32, dev & 0xffffffffU);
    BLKFERRY_TRY_ASSIGN(const Fd file, open_file(path, O_RDONLY));
    std::array<char, 1024> text;
    const ssize_t n = ::read(file.get(), text.data(), text.size());
    if (n < 0)
        return fail_errno(errno, fmt::format("cannot read {}", path));
    return parse_disk_stat({text.data(), static_cast<std::size_t>(n)});
}

SelfCheck::Sample SelfCheck::sample(std::uint64_t own_sectors, const capture::DiskInfo& info) noexcept {
    // Operations that went to the dirty map out of the ring count in both: that lowers the difference, which is harmless.
    return {.own = own_sectors,
            .captured = info.counter(BLKFERRY_C_SECTORS) + info.counter(BLKFERRY_C_DIRTY_SECTORS),
            .odd = info.counter(BLKFERRY_C_UNKNOWN) + info.counter(BLKFERRY_C_RESTACKED) + info.counter(BLKFERRY_C_INFLIGHT_FULL) +
                   info.counter(BLKFERRY_C_REUSED) + info.counter(BLKFERRY_C_WATCHDOG) + info.counter(BLKFERRY_C_BEYOND_END) +
                   info.counter(BLKFERRY_C_PASSTHROUGH),
            .writes = info.writes.value_or(1)};
}

std::optional<std::uint64_t> SelfCheck::feed(std::uint64_t own_sectors, const capture::DiskInfo& info) {
    const Sample now = sample(own_sectors, info);
    const std::optional<Sample> last = std::exchange(last_, now);
    if (!last || attach_ != info.attach_id || last->odd != now.odd || now.own < last->own) {
        attach_ = info.attach_id;
        bound_.reset();
        above_ = 0;
        return {};
    }
    const auto gap = static_cast<std::int64_t>(now.own - now.captured);
    if (bound_ && gap > *bound_) {
        if (++above_ < confirmations)
            return {};
        above_ = 0;
        const auto missed = static_cast<std::uint64_t>(gap - *bound_);
        bound_ = gap;
        return missed;
    }
    above_ = 0;
    // Twice the same: also what the disk adds after the end of a write is in.
    if (now.writes == 0 && last->writes == 0 && now.own == last->own && now.captured == last->captured)
        bound_ = gap;
    return {};
}

}  // namespace blkferry::agent
