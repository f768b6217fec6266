#include "tensor/buffer.h"

#include <cstdint>
#include <cstring>
#include <utility>

#include "gtest/gtest.h"

namespace nibble {
namespace {

bool IsAligned(const void* pointer, size_t alignment) {
  return reinterpret_cast<uintptr_t>(pointer) % alignment == 0;
}

TEST(AlignedBufferTest, AlignsBuffersOfAnySize) {
  for (size_t size : {1, 63, 64, 65, 4096, 3 << 20, 5 << 20}) {
    AlignedBuffer buffer(size);
    EXPECT_EQ(buffer.size(), size);
    EXPECT_TRUE(IsAligned(buffer.data(), AlignedBuffer::kAlignment)) << size;
    std::memset(buffer.data(), 0xAB, size);  // All of it can be written.
  }
}

TEST(AlignedBufferTest, AlignsLargeBuffersToHugePages) {
  const AlignedBuffer buffer(size_t{9} << 20);
  EXPECT_TRUE(IsAligned(buffer.data(), size_t{2} << 20));
}

TEST(AlignedBufferTest, FillsWithZerosWhenAsked) {
  for (size_t size : {1, 100, 5 << 20}) {
    {
      // Dirty memory for the allocator to hand out again.
      AlignedBuffer dirty(size);
      std::memset(dirty.data(), 0xFF, size);
    }
    const AlignedBuffer buffer(size, AlignedBuffer::Fill::kZero);
    for (size_t i = 0; i < size; ++i) {
      ASSERT_EQ(buffer.data()[i], std::byte{0}) << i << " of " << size;
    }
  }
}

TEST(AlignedBufferTest, EmptyBufferHoldsNothing) {
  const AlignedBuffer empty;
  EXPECT_EQ(empty.size(), 0u);
  EXPECT_EQ(empty.data(), nullptr);
  EXPECT_EQ(AlignedBuffer(0).data(), nullptr);
}

TEST(AlignedBufferTest, MoveTakesTheMemory) {
  AlignedBuffer first(100);
  std::byte* const memory = first.data();
  AlignedBuffer second = std::move(first);
  EXPECT_EQ(second.data(), memory);
  EXPECT_EQ(second.size(), 100u);
  EXPECT_EQ(first.size(), 0u);  // NOLINT: moved-from state is promised
  EXPECT_EQ(first.data(), nullptr);
}

TEST(AlignedBufferDeathTest, ImpossibleSizeEndsWithAMessage) {
  // The second text is the sanitizers' own.
  EXPECT_DEATH(AlignedBuffer(size_t{1} << 62),
               "out of memory|maximum supported size");
}

TEST(ArrayTest, IndexesAndIterates) {
  Array<int> array(5, Array<int>::Fill::kZero);
  EXPECT_EQ(array.size(), 5u);
  array[3] = 7;
  int sum = 0;
  for (int value : array) sum += value;
  EXPECT_EQ(sum, 7);
  EXPECT_EQ(array.span()[3], 7);
  EXPECT_TRUE(IsAligned(array.data(), 64));
}

TEST(ArrayTest, MoveLeavesTheOldOneEmpty) {
  Array<double> first(3);
  first[0] = 1.5;
  Array<double> second = std::move(first);
  EXPECT_EQ(second[0], 1.5);
  EXPECT_TRUE(first.empty());  // NOLINT: moved-from state is promised
}

TEST(ArrayDeathTest, RefusesACountWhoseBytesWrap) {
  EXPECT_DEATH(Array<double>(~size_t{0} / 4), "Check failed");
}

}  // namespace
}  // namespace nibble
