"""Test accuracy of experiments/cifar10_cnn.flags over seeds 0 to 2, on CIFAR-10's images compressed as JPEG.

The TFDS folder `cifar10_jpeg` must be in the data directory. Because of the compression, results differ from those on CIFAR-10.

./launch.sh bench cifar10_jpeg
"""

from _accuracy import table

if __name__ == "__main__":
    table({"cifar10_cnn": 3}, flags=["--dataset=cifar10_jpeg"])
