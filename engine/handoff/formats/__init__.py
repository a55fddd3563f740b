"""Parts of vendors' formats: what a vendor's module is made of, and what several of them share."""
