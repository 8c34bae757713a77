// SPDX-License-Identifier: Apache-2.0
#include "store/direct_run.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace blkferry::store {

void DirectRun::begin(std::shared_ptr<File> direct, std::shared_ptr<File> cached, std::uint64_t offset) {
    BLKFERRY_ASSERT(used_ == 0 && offset % io_align == 0);
    if (buffer_.size() == 0)
        buffer_ = IoBuffer(buffer_bytes_);
    direct_ = std::move(direct);
    cached_ = std::move(cached);
    offset_ = offset;
}

Result<void> DirectRun::append(std::span<const std::byte> data) {
    BLKFERRY_ASSERT(open());
    while (!data.empty()) {
        const std::size_t part = std::min(data.size(), buffer_.size() - used_);
        std::memcpy(buffer_.data() + used_, data.data(), part);
        used_ += part;
        data = data.subspan(part);
        if (used_ == buffer_.size())
            BLKFERRY_TRY(write_out());
    }
    return {};
}

Result<void> DirectRun::flush() {
    if (used_ > 0)
        BLKFERRY_TRY(write_out());
    direct_.reset();
    cached_.reset();
    return {};
}

Result<void> DirectRun::write_out() {
    const auto all = std::span<const std::byte>(buffer_.bytes()).first(used_);
    const auto whole = static_cast<std::size_t>(align_down(used_));
    if (whole > 0)
        BLKFERRY_TRY(direct_->write(all.first(whole), offset_));
    if (whole < used_)
        BLKFERRY_TRY(cached_->write(all.subspan(whole), offset_ + whole));
    offset_ += used_;
    used_ = 0;
    return {};
}

}  // namespace blkferry::store
