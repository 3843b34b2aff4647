"""Test accuracy of experiments/cifar10_cnn.flags over seeds 0 to 2, on CIFAR-10's images compressed as JPEG.

The TFDS folder `cifar10_jpeg` is looked for where every data set is; a figure on it is not quite one on CIFAR-10.

./launch.sh bench cifar10_jpeg
"""

from _accuracy import table

if __name__ == "__main__":
    table({"cifar10_cnn": 3}, flags=["--dataset=cifar10_jpeg"])
