"""Test accuracy of the digits experiments over seeds 0 to 4.

./launch.sh bench digits
"""

from _accuracy import table

if __name__ == "__main__":
    table(dict.fromkeys(["digits_linear", "digits_mlp", "digits_lenet"], 5))
