"""Admission of seat pods: completes them, then judges the result.

`wire` AdmissionReview to values and back; `seats` where a pod asks for seats; `defaulting` what a
pod lacks; `validation` what is wrong with it; `admission` the two answers; `view` what is known of
the cluster; `app` the HTTP routes. Nothing is kept: every replica may answer every request.
"""
