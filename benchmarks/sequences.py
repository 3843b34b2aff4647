"""Test metrics of the recurrent experiments over seeds. Their files must be in the data directory, and MNIST prepared.

./launch.sh bench sequences
"""

from _accuracy import table

if __name__ == "__main__":
    table(
        {
            "vowels_lstm": 10,
            "vowels_gru": 10,
            "power_forecast_gru": 10,
            "atis_tagger": 5,
            "mnist_rows_lstm": 5,
            "mnist_rows_gru": 5,
            "shakespeare_lstm": 2,
        }
    )
