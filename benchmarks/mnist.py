"""Test accuracy of the MNIST experiments over seeds 0 to 4. `./launch.sh prepare mnist` prepares the data.

./launch.sh bench mnist
"""

from _accuracy import table

NAMES = ["linear", "mlp", "cnn", "lenet5", "lenet5_1998", "connectivity_full", "connectivity_local", "connectivity_shared"]

if __name__ == "__main__":
    table({f"mnist_{name}": 5 for name in NAMES})
