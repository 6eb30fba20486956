"""What loaded models do beyond continuing text: classify, read, translate, summarize.

A causal model is asked in words. `asking` says what it is given, `likelihood` weighs given answers, `spans` holds an
answer to words of a text, `writing` lets it answer freely.
"""
