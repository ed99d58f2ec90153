"""Run folders turned into pages for people: drawings, charts, one HTML report, a model card."""
