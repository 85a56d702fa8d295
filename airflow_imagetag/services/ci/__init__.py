"""Private: labels of objects in Tencent Cloud COS, by the vendor's product Cloud Infinite."""
