// SPDX-License-Identifier: Apache-2.0
#include "crash_fs.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>

namespace blkferry::test {

using store::File;
using store::OpenMode;

namespace {
constexpr std::uint64_t block_bytes = 4096;

void touch(CrashFs::Inode& inode, std::uint64_t from, std::uint64_t end) {
    for (std::uint64_t s = from / 512; s * 512 < end; ++s) {
        if (auto again = inode.lost.extract(s)) {
            inode.old.insert(std::move(again));
            continue;
        }
        const auto [it, fresh] = inode.old.try_emplace(s);
        if (!fresh)
            continue;
        it->second.fill(std::byte{0});
        if (s * 512 < inode.now.size())
            std::memcpy(it->second.data(), inode.now.data() + s * 512, std::min<std::uint64_t>(512, inode.now.size() - s * 512));
    }
}

void settle(CrashFs::Inode& inode) {
    inode.old.clear();
    inode.durable_bytes = inode.now.size();
}
void fail_sync(CrashFs::Inode& inode) {
    inode.lost.merge(inode.old);
    inode.old.clear();
}
}  // namespace

class CrashFile final : public File {
public:
    CrashFile(CrashFs& fs, std::shared_ptr<CrashFs::Inode> inode, std::string path, bool writable, bool direct)
        : fs_(fs), inode_(std::move(inode)), path_(std::move(path)), writable_(writable), direct_(direct), life_(fs.life_) {
        if (fs.descriptors)
            fs.open_.emplace(fd_ = fs.next_descriptor_++, this);
    }
    ~CrashFile() override {
        if (fd_ >= 0)
            fs_.open_.erase(fd_);
    }

    Result<std::size_t> read(std::span<std::byte> data, std::uint64_t offset) override {
        BLKFERRY_TRY(check_alignment(data, offset));
        BLKFERRY_TRY(fs_.ask("read", path_));
        const auto& now = inode_->now;
        if (offset >= now.size())
            return 0;
        const auto n = std::min<std::uint64_t>(data.size(), now.size() - offset);
        std::memcpy(data.data(), now.data() + offset, n);
        return static_cast<std::size_t>(n);
    }
    Result<void> write(std::span<const std::span<const std::byte>> parts, std::uint64_t offset) override {
        std::vector<std::byte> all;
        for (const auto part : parts) {
            BLKFERRY_TRY(check_alignment(part, offset));
            all.insert(all.end(), part.begin(), part.end());
        }
        if (auto r = begin("write", [&] { put(all, offset); }); !r) {
            if (r.error().sys_errno == CrashFs::pretend)
                return {};
            if (life_ == fs_.life_ && !fs_.dead() && writable_) {
                all.resize(all.size() / 2 / 512 * 512);
                put(all, offset);
            }
            return r;
        }
        put(all, offset);
        return {};
    }
    Result<void> punch(std::uint64_t offset, std::uint64_t bytes) override {
        const auto act = [&] {
            const std::uint64_t end = std::min<std::uint64_t>(offset + bytes, inode_->now.size());
            if (offset >= end)
                return;
            touch(*inode_, offset, end);
            std::fill(at(offset), at(end), std::byte{0});
        };
        BLKFERRY_TRY(begin("punch", act));
        act();
        return {};
    }
    Result<void> truncate(std::uint64_t bytes) override {
        const auto act = [&] {
            touch(*inode_, std::min<std::uint64_t>(bytes, inode_->now.size()), inode_->now.size());
            inode_->now.resize(bytes);
        };
        BLKFERRY_TRY(begin("truncate", act));
        act();
        return {};
    }
    Result<void> allocate(std::uint64_t offset, std::uint64_t bytes) override {
        const auto act = [&] { inode_->now.resize(std::max<std::uint64_t>(inode_->now.size(), offset + bytes)); };
        BLKFERRY_TRY(begin("allocate", act));
        act();
        return {};
    }
    Result<std::uint64_t> size() override {
        BLKFERRY_TRY(fs_.ask("look", path_));
        return inode_->now.size();
    }
    Result<std::uint64_t> allocated() override {
        BLKFERRY_TRY(fs_.ask("look", path_));
        return inode_->now.size();
    }
    Result<std::optional<std::uint64_t>> next_data(std::uint64_t offset) override {
        for (std::uint64_t o = offset; o < inode_->now.size(); o = (o / block_bytes + 1) * block_bytes)
            if (!hole(o / block_bytes))
                return o;
        return std::nullopt;
    }
    Result<std::uint64_t> next_hole(std::uint64_t offset) override {
        for (std::uint64_t o = offset; o < inode_->now.size(); o = (o / block_bytes + 1) * block_bytes)
            if (hole(o / block_bytes))
                return o;
        return std::max<std::uint64_t>(offset, inode_->now.size());
    }
    Result<void> sync() override {
        auto r = begin("sync", [] {});
        if (r)
            settle(*inode_);
        else if (life_ == fs_.life_ && !fs_.dead())
            fail_sync(*inode_);
        return r;
    }
    void start_writeback(std::uint64_t, std::uint64_t) noexcept override {}
    Result<void> reflink_from(File& source) override {
        if (!fs_.reflinks)
            return fail(Errc::unsupported, "no reflinks here");
        const auto& from = static_cast<CrashFile&>(source).inode_->now;
        const auto act = [&] { put(from, 0); };
        BLKFERRY_TRY(begin("reflink", act));
        act();
        return {};
    }
    Result<void> copy_from(File& source, std::uint64_t offset, std::uint64_t bytes) override {
        const auto& from = static_cast<CrashFile&>(source).inode_->now;
        const std::vector<std::byte> part(from.begin() + static_cast<std::ptrdiff_t>(offset),
                                          from.begin() + static_cast<std::ptrdiff_t>(offset + bytes));
        BLKFERRY_TRY(begin("copy", [&] { put(part, offset); }));
        put(part, offset);
        return {};
    }
    int fd() const noexcept override { return fd_; }
    bool direct() const noexcept override { return direct_; }

private:
    /// As O_DIRECT has it.
    Result<void> check_alignment(std::span<const std::byte> data, std::uint64_t offset) const {
        if (direct_ && (offset % block_bytes != 0 || data.size() % block_bytes != 0 ||
                        reinterpret_cast<std::uintptr_t>(data.data()) % block_bytes != 0))
            return fail_errno(EINVAL, path_);
        return {};
    }
    std::vector<std::byte>::iterator at(std::uint64_t offset) {
        return inode_->now.begin() + static_cast<std::ptrdiff_t>(offset);
    }
    bool hole(std::uint64_t block) const {
        const auto& now = inode_->now;
        const std::uint64_t end = std::min<std::uint64_t>((block + 1) * block_bytes, now.size());
        for (std::uint64_t i = block * block_bytes; i < end; ++i)
            if (now[i] != std::byte{0})
                return false;
        return true;
    }
    void put(const std::vector<std::byte>& data, std::uint64_t offset) {
        touch(*inode_, offset, offset + data.size());
        if (inode_->now.size() < offset + data.size())
            inode_->now.resize(offset + data.size());
        std::ranges::copy(data, inode_->now.begin() + static_cast<std::ptrdiff_t>(offset));
    }
    /// The operation that dies may still have reached the disk: power_cut() tears it.
    template <class F>
    Result<void> begin(const char* what, F&& torn) {
        if (life_ != fs_.life_)
            return fail(Errc::io, "file of an earlier life");
        if (!writable_ && std::strcmp(what, "sync") != 0)
            return fail_errno(EBADF, path_);
        const bool was_dead = fs_.dead();
        auto r = fs_.operation(what, path_);
        if (!r && !was_dead && fs_.dead())
            torn();
        return r;
    }

    CrashFs& fs_;
    std::shared_ptr<CrashFs::Inode> inode_;
    const std::string path_;
    const bool writable_;
    const bool direct_;
    const std::uint64_t life_;
    int fd_ = -1;
};

Result<void> CrashFs::operation(const char* what, const std::string& path) {
    ++operations_;
    if (dead())
        return fail(Errc::io, fmt::format("power is gone ({} {})", what, path));
    if (operations_ == fail_at_)
        return fail_errno(fail_errno_, fmt::format("cannot {} {}", what, path));
    return ask(what, path);
}

Result<void> CrashFs::ask(const char* what, const std::string& path) const {
    if (const int err = trouble ? trouble(what, path) : 0; err != 0)
        return fail_errno(err, fmt::format("cannot {} {}", what, path));
    return {};
}

void CrashFs::change(const std::string& dir, std::function<void(Names&)> apply) {
    apply(now_);
    pending_.push_back({dir, std::move(apply)});
}

Result<std::unique_ptr<File>> CrashFs::open(const std::filesystem::path& path, OpenMode mode, store::Caching caching) {
    const std::string name = path.string();
    auto it = now_.find(name);
    if (mode == OpenMode::create) {
        BLKFERRY_TRY(operation("create", name));
        if (it == now_.end()) {
            const auto inode = std::make_shared<Inode>();
            change(path.parent_path().string(), [name, inode](Names& names) { names[name] = inode; });
            it = now_.find(name);
        } else {
            touch(*it->second, 0, it->second->now.size());
            it->second->now.clear();
        }
    }
    if (it == now_.end())
        return fail_errno(ENOENT, name);
    if (mode != OpenMode::create)
        BLKFERRY_TRY(ask("open", name));
    return std::make_unique<CrashFile>(*this, it->second, name, mode != OpenMode::read,
                                       direct_io && caching == store::Caching::direct);
}

Result<void> CrashFs::rename(const std::filesystem::path& from, const std::filesystem::path& to) {
    BLKFERRY_TRY(operation("rename", from.string()));
    if (!now_.contains(from.string()))
        return fail_errno(ENOENT, from.string());
    change(to.parent_path().string(), [from = from.string(), to = to.string()](Names& names) {
        const auto inode = names.at(from);
        names.erase(from);
        names[to] = inode;
    });
    return {};
}

Result<void> CrashFs::remove(const std::filesystem::path& path) {
    BLKFERRY_TRY(operation("remove", path.string()));
    if (now_.contains(path.string()))
        change(path.parent_path().string(), [name = path.string()](Names& names) { names.erase(name); });
    return {};
}

Result<void> CrashFs::make_dir(const std::filesystem::path&) {
    return {};  // folders need no names of their own here
}

Result<std::vector<std::string>> CrashFs::list(const std::filesystem::path& dir) {
    BLKFERRY_TRY(ask("list", dir.string()));
    std::vector<std::string> out;
    for (const auto& [name, inode] : now_)
        if (std::filesystem::path(name).parent_path() == dir)
            out.push_back(std::filesystem::path(name).filename().string());
    std::reverse(out.begin(), out.end());  // nobody may rely on an order
    return out;
}

Result<void> CrashFs::sync_dir(const std::filesystem::path& dir) {
    BLKFERRY_TRY(operation("sync folder", dir.string()));
    if (lie_about_names)
        return {};
    std::size_t last = pending_.size();
    while (last > 0 && pending_[last - 1].dir != dir.string())
        --last;
    for (std::size_t i = 0; i < last; ++i)
        pending_[i].apply(durable_);
    pending_.erase(pending_.begin(), pending_.begin() + static_cast<std::ptrdiff_t>(last));
    return {};
}

Result<void> CrashFs::sync_all(const std::filesystem::path& dir) {
    auto r = operation("sync all of", dir.string());
    for (auto& [name, inode] : now_) {
        if (r)
            settle(*inode);
        else if (!dead())
            fail_sync(*inode);
    }
    BLKFERRY_TRY(r);
    for (const auto& c : pending_)
        c.apply(durable_);
    pending_.clear();
    return {};
}

void CrashFs::power_cut(std::mt19937_64& random) {
    const std::size_t kept = pending_.empty() ? 0 : random() % (pending_.size() + 1);
    for (std::size_t i = 0; i < kept; ++i)
        pending_[i].apply(durable_);
    pending_.clear();
    now_ = durable_;
    for (auto& [name, inode] : now_) {
        const std::uint64_t mode = random() % 4;  // all of it lost, all of it there, or sector by sector
        if (inode->now.size() != inode->durable_bytes && (mode == 0 || (mode > 1 && random() % 2 == 0))) {
            const std::uint64_t end = std::max<std::uint64_t>(inode->now.size(), inode->durable_bytes);
            touch(*inode, std::min<std::uint64_t>(inode->now.size(), inode->durable_bytes), end);
            inode->now.resize(inode->durable_bytes);
        }
        for (const auto& [sector, old] : inode->old) {
            if (mode == 1 || (mode > 1 && random() % 2 == 0))
                continue;
            if (sector * 512 < inode->now.size())
                std::memcpy(inode->now.data() + sector * 512, old.data(),
                            std::min<std::uint64_t>(512, inode->now.size() - sector * 512));
        }
        for (const auto& [sector, old] : inode->lost)
            if (sector * 512 < inode->now.size())
                std::memcpy(inode->now.data() + sector * 512, old.data(),
                            std::min<std::uint64_t>(512, inode->now.size() - sector * 512));
        inode->lost.clear();
        settle(*inode);
    }
    durable_ = now_;
    process_kill();
}

std::vector<std::byte>* CrashFs::contents(const std::filesystem::path& path) {
    const auto it = now_.find(path.string());
    return it == now_.end() ? nullptr : &it->second->now;
}

std::vector<std::string> CrashFs::paths() const {
    std::vector<std::string> out;
    for (const auto& [name, inode] : now_)
        out.push_back(name);
    return out;
}

}  // namespace blkferry::test
