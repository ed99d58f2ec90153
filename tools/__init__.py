"""The commands of Triptych; installed as the package ``triptych``. ``triptych --help`` lists them."""
